"""An analysis as a table and a line in a terminal. Needs rich."""

from __future__ import annotations

from rich.table import Table

from trainlet.choose.contribution import Contributions, Estimate
from trainlet.report.tables import _table


def contributions_table(c: Contributions) -> Table:
    """One row a layer: gain of the biases from there on, of the weight by share, and Fisher information."""
    shares = sorted({share for _, share in c.weights})
    table = _table(
        "gains in points of accuracy, 90% interval half-width in brackets; ~ interpolated",
        layer="right", weight="left", part="left", biases_from_here="right",
        **{f"share_{s:g}": "right" for s in shares}, over="right", fisher_per_byte="right",
    )  # fmt: skip
    for x in c.layers:
        if x.conv_index is None:
            continue
        k = c.depth - x.conv_index
        cells = [_points(c.weights.get((x.weight, s))) for s in shares]
        fisher = f"{c.fisher[x.weight].sum() / x.bytes:.2e}" if x.weight in c.fisher else ""
        base = f"bias-only:{c.bases[x.weight]}" if x.weight in c.bases else ""
        table.add_row(
            str(x.conv_index), x.weight, f"{x.block} {x.part}", _points(c.biases.get(k)), *cells, base, fisher
        )
    return table


def _points(e: Estimate | None) -> str:
    if e is None:
        return ""
    sign = "" if e.seeds else "~"
    return f"{sign}{100 * e.gain:+.1f} ({50 * (e.high - e.low):.1f})"


def contributions_line(c: Contributions) -> str:
    """The head's accuracy, the rates, and how well Fisher information ranks the gains."""
    s, r = c.settings, c.correlation
    ranks = ", ".join(
        f"{name} {r[key]:+.2f}"
        for name, key in (
            ("biases", "biases"),
            ("weights", "weights"),
            ("weights per byte", "weights_per_byte"),
        )
        if r.get(key) is not None
    )
    return (
        f"head alone {c.head_accuracy.gain:.1%} on {s['validation_samples']} validation samples; "
        f"rate {s['lr']:g}, of the head alone {s['head_lr']:g}; "
        f"{s['runs']} runs, {s['cpu_seconds']:.0f} processor seconds; "
        f"rank correlation of Fisher information with measured gains: {ranks or 'too few layers'}"
    )
