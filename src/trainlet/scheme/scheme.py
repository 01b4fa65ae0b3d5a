"""UpdateScheme: per weight frozen, whole, or a set of input channels; per bias frozen or trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainlet.errors import SchemeError
from trainlet.ir import Graph
from trainlet.scheme.layers import NORMS, Layer, centered, largest_norm, layers, norms

RULES = ("norm", "fisher")


@dataclass(frozen=True)
class Channels:
    """Which channels of a weight are trained: a share in (0, 1], a count, or explicit indices.

    redraw: others in every epoch, drawn from the seed (train/redraw.py); no rule then.
    """

    share: float | None = None
    count: int | None = None
    indices: tuple[int, ...] | None = None
    rule: str = "norm"
    redraw: bool = False

    @property
    def whole(self) -> bool:
        return self.share == 1.0


@dataclass(frozen=True)
class UpdateScheme:
    """What is trained, by parameter name. Everything not named is frozen.

    fisher: by weight, the Fisher information of each of its channels, which the rule "fisher" needs.
    """

    name: str
    weights: Mapping[str, Channels] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    fisher: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The scheme file: one line a parameter, diffable."""
        weights = {name: _channels_to_json(c) for name, c in self.weights.items()}
        lines = ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in weights.items())
        biases = ",\n".join(f"    {json.dumps(b)}" for b in self.biases)
        values = ",\n".join(f"    {json.dumps(k)}: {json.dumps(list(v))}" for k, v in self.fisher.items())
        information = f',\n  "fisher": {{\n{values}\n  }}' if self.fisher else ""
        return (
            f'{{\n  "scheme": {json.dumps(self.name)},\n  "weights": {{\n{lines}\n  }},\n'
            f'  "biases": [\n{biases}\n  ]{information}\n}}\n'
        )


@dataclass(frozen=True)
class Selection:
    """A scheme resolved against a graph: weight name -> trained channels (None: whole), bias names.

    redrawn: weights of which other channels are trained in every epoch; of these only the number counts.
    """

    name: str
    weights: Mapping[str, tuple[int, ...] | None]
    biases: frozenset[str]
    redrawn: frozenset[str] = frozenset()


def _channels_to_json(c: Channels) -> Any:
    if c.whole:
        return "all"
    if c.indices is not None:
        return {"indices": list(c.indices)}
    how: dict[str, Any] = {"redraw": True} if c.redraw else {"rule": c.rule}
    return {"share": c.share, **how} if c.share is not None else {"count": c.count, **how}


def read_scheme(path: Path) -> UpdateScheme:
    """The scheme in a JSON file. Raises SchemeError naming the file and the entry that is wrong."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemeError(f"scheme file {path} cannot be read: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("weights", {}), dict):
        raise SchemeError(f'scheme file {path}: expected {{"scheme", "weights": {{…}}, "biases": […]}}')
    if unknown := set(raw) - {"scheme", "weights", "biases", "fisher"}:
        raise SchemeError(f"scheme file {path}: unknown entry {', '.join(sorted(unknown))}")
    biases = raw.get("biases", [])
    if not isinstance(biases, list) or not all(isinstance(b, str) for b in biases):
        raise SchemeError(f'scheme file {path}: "biases" must be a list of parameter names')
    entries = raw.get("weights", {}).items()
    weights = {
        name: _channels_from_json(f"scheme file {path}: weight {name}", entry) for name, entry in entries
    }
    fisher = _fisher_from_json(path, raw.get("fisher", {}))
    return UpdateScheme(str(raw.get("scheme", path.stem)), weights, tuple(biases), fisher)


def _fisher_from_json(path: Path, raw: Any) -> dict[str, tuple[float, ...]]:
    if not isinstance(raw, dict) or not all(isinstance(v, list) for v in raw.values()):
        raise SchemeError(f'scheme file {path}: "fisher" must hold a list of numbers for each weight')
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for v in raw.values() for x in v):
        raise SchemeError(f'scheme file {path}: "fisher" must hold numbers')
    return {name: tuple(map(float, values)) for name, values in raw.items()}


def _channels_from_json(where: str, entry: Any) -> Channels:
    if entry == "all":
        return Channels(share=1.0)
    if not isinstance(entry, dict) or not set(entry) <= {"share", "count", "indices", "rule", "redraw"}:
        raise SchemeError(
            f'{where}: expected "all", {{"share"}}, {{"count"}} or {{"indices"}}, got {entry!r}'
        )
    given = [k for k in ("share", "count", "indices") if entry.get(k) is not None]
    if len(given) != 1:
        raise SchemeError(f"{where}: give exactly one of share, count and indices")
    kinds: dict[str, tuple[type, ...]] = {"share": (int, float), "count": (int,), "indices": (list,)}
    if not isinstance(entry[given[0]], kinds[given[0]]) or isinstance(entry[given[0]], bool):
        raise SchemeError(f"{where}: {given[0]} has the wrong type: {entry[given[0]]!r}")
    if given[0] == "indices" and not all(type(i) is int for i in entry["indices"]):  # True is an int, too
        raise SchemeError(f"{where}: channel indices must be integers")
    indices = tuple(entry["indices"]) if given[0] == "indices" else None
    redraw = entry.get("redraw", False)
    if not isinstance(redraw, bool) or (redraw and (indices is not None or "rule" in entry)):
        raise SchemeError(
            f'{where}: "redraw" is true or false, and stands beside "share" or "count" without a "rule": '
            "channels that are drawn anew every epoch follow no other rule"
        )
    return Channels(entry.get("share"), entry.get("count"), indices, entry.get("rule", "norm"), redraw)


def select(scheme: UpdateScheme, graph: Graph) -> Selection:
    """Channels and biases of `graph` that `scheme` trains.

    Raises SchemeError naming a parameter that is not in the network, a share outside (0, 1], or
    channels out of range; and when nothing at all is trained.
    """
    by_weight = {layer.weight.name: layer for layer in (*layers(graph), *norms(graph))}
    by_bias = {layer.bias.name for layer in by_weight.values() if layer.bias is not None}
    for name in scheme.weights:
        if name not in by_weight:
            raise SchemeError(_unknown(scheme, "weight", name, list(by_weight)))
    for name in scheme.biases:
        if name not in by_bias:
            raise SchemeError(_unknown(scheme, "bias", name, sorted(by_bias)))
    weights = {
        name: _select_channels(graph, by_weight[name], c, scheme) for name, c in scheme.weights.items()
    }
    kept = {name: c for name, c in weights.items() if c is None or c}
    if not kept and not scheme.biases:
        raise SchemeError(f"scheme {scheme.name} trains nothing: name at least one weight or bias")
    redrawn = frozenset(name for name, c in scheme.weights.items() if c.redraw and kept.get(name))
    return Selection(scheme.name, kept, frozenset(scheme.biases), redrawn)


def _unknown(scheme: UpdateScheme, kind: str, name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, 3) or known[:3]
    return f"scheme {scheme.name}: the network has no {kind} {name!r}; did you mean {', '.join(close)}?"


def _select_channels(graph: Graph, layer: Layer, c: Channels, scheme: UpdateScheme) -> tuple[int, ...] | None:
    name, total = layer.weight.name, layer.channels
    if c.rule not in RULES:
        raise SchemeError(f"weight {name}: rule {c.rule!r} is none of {', '.join(RULES)}")
    if c.whole:
        return None
    if layer.node.op in NORMS:
        raise SchemeError(f"weight {name}: the scale of a normalization is trained whole or not at all")
    if c.indices is not None:
        bad = [i for i in c.indices if not 0 <= i < total]
        if bad or len(set(c.indices)) != len(c.indices):
            raise SchemeError(f"weight {name}: channels {bad or 'repeat'}; it has channels 0 to {total - 1}")
        chosen = tuple(sorted(c.indices))
    elif c.rule == "fisher":
        chosen = _most_informative(name, total, _count(name, total, c), scheme)
    else:
        chosen = largest_norm(centered(graph, layer), _count(name, total, c), layer.depthwise)
    groups = int(layer.node.attrs.get("groups", 1))  # type: ignore[arg-type]
    if groups > 1 and not layer.depthwise and len(chosen) < total:
        raise SchemeError(f"weight {name}: a grouped convolution is trained whole or not at all")
    return None if len(chosen) == total else chosen


def _most_informative(name: str, total: int, count: int, scheme: UpdateScheme) -> tuple[int, ...]:
    """The channels of largest Fisher information, ascending; ties go to the lower index."""
    values = scheme.fisher.get(name)
    if values is None or len(values) != total:
        found = "none" if values is None else f"{len(values)} values"
        raise SchemeError(
            f'weight {name}: rule "fisher" needs the information of its {total} channels in the scheme, '
            f"there are {found}: `trainlet search --rule fisher` writes a scheme with its channels chosen"
        )
    return tuple(sorted(sorted(range(total), key=lambda i: -values[i])[:count]))


def _count(name: str, total: int, c: Channels) -> int:
    if c.share is not None:
        if not 0 < c.share <= 1:
            raise SchemeError(f"weight {name}: share {c.share} is outside (0, 1]")
        if (count := int(total * c.share)) == 0:
            raise SchemeError(f"weight {name}: share {c.share} of {total} channels is none; give a count")
        return count
    assert c.count is not None
    if not 0 < c.count <= total:
        raise SchemeError(f"weight {name}: {c.count} channels of {total}")
    return c.count
