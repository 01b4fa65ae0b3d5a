"""Schemes by name: head, bias-only:K, last:K, full, biases:K,I=SHARE, published ("mcunet-5fps:49kb")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from trainlet.errors import SchemeError
from trainlet.ir import Graph
from trainlet.scheme.layers import Layer, layers, norms
from trainlet.scheme.scheme import Channels, UpdateScheme, read_scheme

WHOLE = Channels(share=1.0)

# Lin et al., arXiv:2206.15472: (last biases, {convolution index: share of input channels}).
PUBLISHED: dict[str, tuple[int, dict[int, float]]] = {
    "mcunet-5fps:49kb": (20, {24: 0.25, 27: 0.5, 30: 0.5}),
    "mcunet-5fps:74kb": (21, {21: 1, 24: 1, 27: 0.5, 30: 1}),
    "mcunet-5fps:99kb": (22, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1 / 8, 39: 1 / 4}),
    "mcunet-5fps:124kb": (24, {21: 0.25, 24: 1, 27: 1, 30: 1, 33: 0.5, 39: 0.5}),
    "mcunet-5fps:148kb": (23, {21: 1, 24: 1, 27: 1, 30: 1, 36: 1, 39: 0.5}),
    "mbv2-w0.35:49kb": (16, {36: 1, 39: 1, 41: 0.25, 42: 1 / 8, 45: 1 / 8, 48: 1 / 8, 49: 1 / 8}),
    "mbv2-w0.35:73kb": (20, {32: 1 / 8, 33: 0.5, 36: 0.5, 39: 1, 41: 0.25, 42: 1 / 8, 45: 1 / 8, 48: 1}),
    "mbv2-w0.35:99kb": (25, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 1 / 8, 45: 0.5, 48: 1}),
    "mbv2-w0.35:123kb": (31, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 0.5, 45: 1, 48: 1}),
    "mbv2-w0.35:138kb": (34, {27: 1, 30: 1, 33: 1, 36: 1, 39: 1, 42: 1, 45: 1, 48: 1}),
    "proxyless-w0.3:49kb": (21, {39: 0.25, 42: 1, 45: 1, 51: 1 / 8, 54: 0.25, 57: 0.25}),
    "proxyless-w0.3:74kb": (28, {33: 0.5, 36: 0.25, 39: 1, 42: 1, 45: 1, 51: 0.5, 54: 0.25, 57: 0.5}),
    "proxyless-w0.3:98kb": (25, {36: 1, 39: 0.5, 42: 1, 45: 1, 48: 0.25, 51: 0.5, 54: 1, 57: 1}),
    "proxyless-w0.3:120kb": (32, {36: 1, 39: 1, 42: 1, 45: 1, 48: 0.5, 51: 1, 54: 1, 57: 1}),
    "proxyless-w0.3:148kb": (45, {36: 1, 39: 1, 42: 1, 45: 1, 48: 1, 51: 1, 54: 1, 57: 1}),
}


def resolve_scheme(text: str | Path | UpdateScheme, graph: Graph) -> UpdateScheme:
    """A scheme from its name, its file, or itself. Raises SchemeError listing what is known."""
    if isinstance(text, UpdateScheme):
        return text
    if isinstance(text, Path) or str(text).endswith(".json"):
        return read_scheme(Path(text))
    kind, _, number = str(text).partition(":")
    found = layers(graph)
    if text == "head":
        return _last(str(text), found, 0, 0)
    if text == "full":
        return _with_norms(_last(str(text), found, len(found), len(found)), graph)
    if kind in ("bias-only", "last"):
        count = _number(str(text), number, len([x for x in found if not x.is_head]))
        return _last(str(text), found, count, count if kind == "last" else 0)
    if kind == "biases":
        return _biases(str(text), number, found)
    return _published(str(text), graph, found)


def _with_norms(scheme: UpdateScheme, graph: Graph) -> UpdateScheme:
    """The scheme, and the scale and offset of every normalization."""
    found = norms(graph)
    weights = {**scheme.weights, **{x.weight.name: WHOLE for x in found}}
    return UpdateScheme(
        scheme.name, weights, (*scheme.biases, *(x.bias.name for x in found if x.bias is not None))
    )


def biases_name(biases: int, shares: Mapping[int, float]) -> str:
    """The name of a scheme as published ones are written: the last biases, {layer index: share}."""
    return ",".join([f"biases:{biases}", *(f"{i}={share:g}" for i, share in sorted(shares.items()))])


def _biases(text: str, numbers: str, found: list[Layer]) -> UpdateScheme:
    """biases:K,I=SHARE,…: the head, the last K biases, of layer I (counted as in `inspect`) a share."""
    body = [x for x in found if not x.is_head]
    count, *parts = numbers.split(",")
    base = _last(text, found, _number(text, count, len(body)) if count != "0" else 0, 0)
    weights: dict[str, Channels] = {}
    for part in parts:
        match = re.fullmatch(r"(\d+)=(\d*\.?\d+)", part)
        if match is None or int(match[1]) >= len(body) or not 0 < float(match[2]) <= 1:
            raise SchemeError(
                f"scheme {text!r}: {part!r} is not LAYER=SHARE with a layer from 0 to {len(body) - 1} and "
                "a share in (0, 1], as in biases:20,24=0.25,27=0.5"
            )
        weights[body[int(match[1])].weight.name] = Channels(share=float(match[2]))
    return UpdateScheme(text, {**weights, **base.weights}, base.biases)


def _number(text: str, number: str, most: int) -> int:
    if not number.isdigit() or not 0 < int(number) <= most:
        raise SchemeError(f"scheme {text!r}: give a number of layers from 1 to {most}, as in last:{most}")
    return int(number)


def _last(name: str, found: list[Layer], biases: int, weights: int) -> UpdateScheme:
    """The head, and of the other layers the last `biases` biases and the last `weights` weights."""
    body = [x for x in found if not x.is_head]
    head = [x for x in found if x.is_head]
    with_weight = head + (body[-weights:] if weights else [])
    with_bias = head + (body[-biases:] if biases else [])
    if not head and not biases:
        raise SchemeError(f"scheme {name!r}: the network ends in no trainable layer, so it has no head")
    return UpdateScheme(
        name,
        {x.weight.name: WHOLE for x in sorted(with_weight, key=lambda x: x.index)},
        tuple(x.bias.name for x in sorted(with_bias, key=lambda x: x.index) if x.bias is not None),
    )


def _published(text: str, graph: Graph, found: list[Layer]) -> UpdateScheme:
    key = text if ":" in text else f"{graph.name}:{text}"
    if key not in PUBLISHED:
        known = [k for k in PUBLISHED if k.startswith(graph.name + ":")] or list(PUBLISHED)
        raise SchemeError(
            f"no scheme {text!r}: give head, bias-only:K, last:K, full, biases:K,LAYER=SHARE, a .json file, "
            f"or one of {', '.join(known)}"
        )
    biases, shares = PUBLISHED[key]
    body = [x for x in found if not x.is_head]
    if key.split(":")[0] != graph.name or biases > len(body) or max(shares) >= len(body):
        raise SchemeError(f"scheme {key} is for another network than {graph.name}")
    base = _last(key, found, biases, 0)
    weights = {body[i].weight.name: Channels(share=float(share)) for i, share in sorted(shares.items())}
    return UpdateScheme(key, {**weights, **base.weights}, base.biases)


def scheme_names(graph: Graph) -> list[str]:
    """Names that fit a network; of the K in bias-only:K and last:K, the powers of two and the largest."""
    found = layers(graph)
    most = len([x for x in found if not x.is_head])
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64, 128) if k < most] + ([most] if most else [])
    names = ["head"] if most < len(found) else []
    names += [f"{kind}:{k}" for kind in ("bias-only", "last") for k in counts]
    return [*names, "full", *(key for key in PUBLISHED if key.split(":")[0] == graph.name)]
