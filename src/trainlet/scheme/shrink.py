"""Schemes that train less and less: where a budget is too small, the first of them that fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from trainlet.ir import Graph
from trainlet.ir.ops.convolution import node_window
from trainlet.scheme.layers import Layer, layers
from trainlet.scheme.named import biases_name, resolve_scheme
from trainlet.scheme.scheme import Channels, UpdateScheme

SMALLEST_SHARE = 1 / 8  # a weight that would train less is dropped
MOST = 63  # schemes in a chain: bisecting them takes six plans


def smaller_schemes(scheme: UpdateScheme, graph: Graph) -> list[UpdateScheme]:
    """From a little less than `scheme` down to the head alone, by names that `--scheme` takes.

    None for `head`. last:K loses a layer at a time. Of any other scheme the weight that costs most bytes
    (saved input and stored channels) is halved again and again, and dropped below an eighth; then biases
    go, the earliest first, and with each bias the depth of the backward pass. Biases that are not the last
    ones count as so many of the last.
    """
    kind, _, number = scheme.name.partition(":")
    found = layers(graph)
    body = [x for x in found if not x.is_head]
    names: list[str] = []
    if scheme.name == "full" or (kind == "last" and number.isdigit()):
        most = len(body) if scheme.name == "full" else int(number) - 1
        names = [f"last:{k}" for k in range(most, 0, -1)]
        scheme = resolve_scheme("last:1", graph)
    if scheme.name != "head":
        names += _names(scheme, body)
        names += ["head"] if len(body) < len(found) else []
    step = max(1, -(-len(names) // MOST))
    return [resolve_scheme(name, graph) for i, name in enumerate(names) if (len(names) - 1 - i) % step == 0]


def _names(scheme: UpdateScheme, body: Sequence[Layer]) -> Iterator[str]:
    biases = sum(x.bias is not None and x.bias.name in scheme.biases for x in body)
    chosen = [i for i, x in enumerate(body) if x.weight.name in scheme.weights]
    shares = {i: _share(body[i], scheme.weights[body[i].weight.name]) for i in chosen}
    while shares:
        largest = max(shares, key=lambda i: (_bytes(body[i]) * shares[i], -i))
        shares[largest] /= 2
        if shares[largest] < SMALLEST_SHARE or int(body[largest].channels * shares[largest]) == 0:
            del shares[largest]
        if biases or shares:
            yield biases_name(biases, shares)
    for fewer in range(biases - 1, 0, -1):
        yield biases_name(fewer, {})


def _share(layer: Layer, chosen: Channels) -> float:
    if chosen.share is not None:
        return chosen.share
    count = chosen.count if chosen.count is not None else len(chosen.indices or ())
    return count / layer.channels


def _bytes(layer: Layer) -> int:
    """Saved input and weights of all channels, at a byte an element."""
    s = node_window(layer.node)
    return layer.channels * (s.h * s.w + layer.channel_weights)


def first_fitting(
    schemes: Sequence[UpdateScheme], ram_bytes: Callable[[UpdateScheme], int], budget_bytes: int
) -> tuple[UpdateScheme | None, int]:
    """The first scheme of a chain that fits, and its bytes; None, and the bytes of the last, if none does.

    Found by bisection, so that few are planned. RAM need not shrink with every step of the chain; what is
    returned was planned and fits.
    """
    found, needed = len(schemes) - 1, ram_bytes(schemes[-1])
    if needed > budget_bytes:
        return None, needed
    low = 0
    while low < found:
        middle = (low + found) // 2
        bytes_there = ram_bytes(schemes[middle])
        if bytes_there <= budget_bytes:
            found, needed = middle, bytes_there
        else:
            low = middle + 1
    return schemes[found], needed
