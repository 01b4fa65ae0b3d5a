"""What `trainlet analyze` found out about a network on a task: the gain of each thing that can be trained.

This is the contract between measuring (analyze.py) and choosing. Gains are differences of accuracy on a
validation part of the training data, in 0..1, and are meant to be added (arXiv:2206.15472, section 3.2):

    gain(scheme) ~ bias_gain(k) + sum over the trained weights i of gain(i, share of i)

up to what they have in common (gains.py). `biases[k]` is measured over the head alone, `weights[i, share]`
over one base for all layers, the head and the last `bases[i]` biases (settings["base_biases"]: none, unless
asked for).

Where biases stop gaining with depth, layers beyond are not measured: `bias_gain` stays at that of the deepest
count that was, and weights beyond gain 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.choose.smooth import concave, unimodal
from trainlet.data import Dataset
from trainlet.errors import AnalysisError
from trainlet.ir import Graph
from trainlet.output import whole_files

FORMAT = "trainlet-analysis-1"
SHARES = (0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A gain in accuracy (0..1) with a 90% confidence interval; `seeds` runs of `epochs` each are behind it.

    Without any (seeds 0) it is interpolated between other shares of the same weight.
    """

    gain: float
    low: float
    high: float
    seeds: int
    epochs: float

    @property
    def deviation(self) -> float:
        """Standard error of `gain`."""
        return max(self.high - self.low, 1e-6) / (2 * 1.6449)


@dataclass(frozen=True)
class LayerInfo:
    """Where a weight lies. `conv_index`: as in the published schemes, None for the head. `part`: pw1, dw or
    pw2 of an inverted residual block, else conv or gemm. `bytes`: of the whole weight, int8 or float.
    `whole_only`: a grouped convolution, whose channels cannot be chosen.
    """

    index: int
    conv_index: int | None
    weight: str
    bias: str | None
    block: str
    part: str
    channels: int
    bytes: int
    whole_only: bool = False


@dataclass(frozen=True)
class Contributions:
    """An analysis. `fisher`: weight -> mean squared gradient of its real-valued weights, summed by channel
    (those
    a scheme chooses from, scheme/layers.py); `bias_fisher`: the same summed over a bias."""

    model: str
    model_id: str
    data: str
    settings: Mapping[str, Any]
    head_accuracy: Estimate
    biases: Mapping[int, Estimate]
    weights: Mapping[tuple[str, float], Estimate]
    bases: Mapping[str, int]
    layers: tuple[LayerInfo, ...]
    fisher: Mapping[str, np.ndarray] = field(default_factory=dict)
    bias_fisher: Mapping[str, float] = field(default_factory=dict)
    correlation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """Layers but the head: the largest k."""
        return sum(layer.conv_index is not None for layer in self.layers)

    def layer(self, weight: str) -> LayerInfo:
        """Raises AnalysisError for a weight that the analysis does not know."""
        found = next((layer for layer in self.layers if layer.weight == weight), None)
        if found is None:
            raise AnalysisError(f"the analysis of {self.model} has no weight {weight!r}")
        return found

    def shares(self, weight: str) -> list[float]:
        """Shares at which a weight was measured, ascending (a layer of few channels has fewer)."""
        return sorted(share for name, share in self.weights if name == weight)

    def bias_gain(self, k: int) -> float:
        """Gain of training the last k biases over the head alone, smoothed over k to rise and then fall."""
        if not 0 <= k <= self.depth:
            raise AnalysisError(f"{k} biases: {self.model} has {self.depth} layers but the head")
        if k == 0 or not self.biases:
            return 0.0
        ks = [0, *sorted(self.biases)]
        precise = 10 * max(
            1 / e.deviation**2 for e in self.biases.values()
        )  # at 0 the gain is 0, not measured
        weights = [precise, *(1 / self.biases[i].deviation ** 2 for i in ks[1:])]
        gains = unimodal(np.array([0.0, *(self.biases[i].gain for i in ks[1:])]), np.array(weights))
        return float(np.interp(k, ks, gains - gains[0]))

    def gain(self, weight: str, share: float) -> float:
        """Gain of also training `share` of a weight's channels.

        A concave curve from (0, 0) through the measured shares (each further channel adds no more than those
        before), linear in log2(share) between them.
        """
        measured = self.shares(weight)
        if not 0 <= share <= 1:
            raise AnalysisError(f"weight {weight}: share {share} is outside 0..1")
        if not measured or share == 0:
            self.layer(weight)
            return 0.0
        found = [self.weights[weight, s] for s in measured]
        fitted = concave(
            np.array(measured), np.array([e.gain for e in found]), np.array([e.deviation**-2 for e in found])
        )
        if share < measured[0]:
            return float(fitted[0] * share / measured[0])
        return float(np.interp(np.log2(share), np.log2(measured), fitted))

    def to_json(self) -> str:
        body = {
            "format": FORMAT,
            "model": self.model,
            "model_id": self.model_id,
            "data": self.data,
            "settings": dict(self.settings),
            "head_accuracy": asdict(self.head_accuracy),
            "biases": {str(k): asdict(e) for k, e in self.biases.items()},
            "weights": [{"weight": w, "share": s, **asdict(e)} for (w, s), e in self.weights.items()],
            "bases": dict(self.bases),
            "layers": [asdict(layer) for layer in self.layers],
            "fisher": {k: [float(f"{x:.6g}") for x in v] for k, v in self.fisher.items()},
            "bias_fisher": dict(self.bias_fisher),
            "correlation": dict(self.correlation),
        }
        return json.dumps(body, indent=1) + "\n"

    def write(self, path: str | Path) -> None:
        """To a JSON file, whole or not at all."""
        path = Path(path)
        with whole_files(path) as folder:
            (folder / path.name).write_text(self.to_json(), encoding="utf-8")


def from_json(text: str) -> Contributions:
    """Raises ValueError, KeyError or TypeError where `text` is no analysis; `read` says so in words."""
    raw = json.loads(text)
    if raw.get("format") != FORMAT:
        raise ValueError(f"format {raw.get('format')!r} instead of {FORMAT}")
    weights = {}
    for entry in raw["weights"]:
        key = (entry.pop("weight"), float(entry.pop("share")))
        weights[key] = Estimate(**entry)
    return Contributions(
        raw["model"],
        raw["model_id"],
        raw["data"],
        raw["settings"],
        Estimate(**raw["head_accuracy"]),
        {int(k): Estimate(**e) for k, e in raw["biases"].items()},
        weights,
        {k: int(v) for k, v in raw["bases"].items()},
        tuple(LayerInfo(**layer) for layer in raw["layers"]),
        {k: np.array(v) for k, v in raw["fisher"].items()},
        raw["bias_fisher"],
        raw["correlation"],
    )


def read(path: str | Path, graph: Graph | None = None, data: Dataset | None = None) -> Contributions:
    """The analysis in a file. Raises AnalysisError where it is of another network than `graph` (as loaded,
    before
    it gets a new head), or of other training samples than `data` holds (all of them, before any split)."""
    try:
        found = from_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AnalysisError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise AnalysisError(f"{path} is not an analysis that this version reads ({why})") from None
    if graph is not None and found.model_id != model_id(graph):
        same = "other weights or another structure" if graph.name == found.model else "another name"
        raise AnalysisError(
            f"{path} is an analysis of {found.model}; {graph.name} has {same}: analyze it anew, or give the "
            "model that was analyzed"
        )
    if data is not None and found.data != data_id(data):
        raise AnalysisError(
            f"{path} was measured on other training data than is given: analyze again, or give the data that "
            "was analyzed"
        )
    return found


def data_id(data: Dataset) -> str:
    """Names the training samples and labels of a task."""
    return f"{data.digest():08x}"


def model_id(graph: Graph) -> str:
    """Hash of a network's structure and constants; its name and the batch it stands for do not count."""
    state = hashlib.sha256()
    for v in graph.inputs:
        state.update(repr((v.name, v.dtype, v.shape[1:], v.quant)).encode())
    for n in graph.nodes:
        names = [None if v is None else v.name for v in n.inputs]
        outs = [(v.name, v.dtype, v.shape[1:], v.quant) for v in n.outputs]
        attrs = sorted((k, v) for k, v in n.attrs.items() if k not in ("shape", "sizes"))
        state.update(repr((n.op, names, outs, attrs)).encode())
    for name in sorted(graph.constants):
        t = graph.constants[name]
        state.update(repr((name, t.value.dtype, t.value.shape)).encode())
        state.update(np.ascontiguousarray(t.data).tobytes())
    return state.hexdigest()[:16]
