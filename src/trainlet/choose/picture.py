"""The analysis as a picture: biases by depth, weights by layer and share, Fisher information beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainlet.choose.contribution import Contributions


def picture(c: Contributions, path: Path) -> Path | None:
    """Write a PNG; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    body = [x for x in c.layers if x.conv_index is not None]
    figure = Figure(figsize=(11, 4 + 0.17 * len(body)), layout="constrained")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.2, 1 + 0.17 * len(body)])
    top, below = parts
    _biases(top.subplots(), c)
    heat, fisher = below.subplots(1, 2, width_ratios=[3, 1], sharey=True)
    _heat(heat, c, below)
    _fisher(fisher, c)
    rank = c.correlation.get("weights")
    said = "" if rank is None else f"; rank correlation with Fisher information {rank:+.2f}"
    figure.suptitle(
        f"{c.model}: head alone {c.head_accuracy.gain:.1%} of {c.settings['validation_samples']} validation "
        f"samples{said}"
    )
    figure.savefig(path, dpi=110)
    return path


def _biases(axes: Any, c: Contributions) -> None:
    ks = sorted(c.biases)
    gain = np.array([100 * c.biases[k].gain for k in ks])
    low, high = (np.array([100 * getattr(c.biases[k], side) for k in ks]) for side in ("low", "high"))
    axes.errorbar(
        ks, gain, yerr=[gain - low, high - gain], fmt="o", ms=3, lw=1, label="measured, 90% interval"
    )
    axes.plot([0, *ks], [100 * c.bias_gain(k) for k in [0, *ks]], label="smoothed")
    axes.axvline(c.settings["base_biases"], ls=":", c="gray", label="base of the weights' trials")
    axes.axhline(0, c="gray", lw=0.5)
    axes.set(xlabel="trained biases, from the last", ylabel="gain, points of accuracy")
    axes.set_title("biases, over the head alone", fontsize=10)
    axes.legend(fontsize=8)


def _heat(axes: Any, c: Contributions, figure: Any) -> None:
    body = [x for x in c.layers if x.conv_index is not None]
    shares = sorted({share for _, share in c.weights})
    if not shares:
        axes.set_axis_off()
        return
    cells = np.array(
        [
            [100 * c.weights[x.weight, s].gain if (x.weight, s) in c.weights else np.nan for s in shares]
            for x in body
        ]
    )
    limit = max(0.5, float(np.nanmax(np.abs(cells)))) if np.isfinite(cells).any() else 1.0
    image = axes.imshow(cells, aspect="auto", cmap="RdBu", vmin=-limit, vmax=limit)
    for i, x in enumerate(body):
        for j, s in enumerate(shares):
            e = c.weights.get((x.weight, s))
            if e is not None:
                text = f"{100 * e.gain:+.1f}" + ("" if e.seeds else " ~")
                axes.text(j, i, text, ha="center", va="center", fontsize=6)
    axes.set_xticks(range(len(shares)), [f"{s:g}" for s in shares])
    axes.set_yticks(range(len(body)), [f"{x.conv_index}  {x.block} {x.part}" for x in body], fontsize=6)
    axes.set(xlabel="share of channels")
    axes.set_title("weights, over the base (~ interpolated)", fontsize=10)
    figure.colorbar(image, ax=axes, label="gain, points of accuracy", shrink=0.6)


def _fisher(axes: Any, c: Contributions) -> None:
    body = [x for x in c.layers if x.conv_index is not None]
    per_byte = [float(c.fisher[x.weight].sum()) / x.bytes if x.weight in c.fisher else np.nan for x in body]
    axes.barh(range(len(body)), per_byte, color="gray")
    axes.set_xscale("log")
    axes.set(xlabel="squared gradient per byte")
    axes.set_title("Fisher information", fontsize=10)
