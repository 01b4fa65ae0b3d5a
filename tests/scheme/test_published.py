"""The published schemes: which channels, and their published memory to the bit."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.scheme.networks import small
from tests.shared_files import shared
from trainlet.errors import SchemeError
from trainlet.frontends.archive import load_archive
from trainlet.ir import Graph
from trainlet.scheme import PUBLISHED, analytic_bits, layers, resolve_scheme, select

pytestmark = pytest.mark.shared
MODELS = ("mcunet-5fps", "mbv2-w0.35", "proxyless-w0.3")


@cache
def network(name: str) -> Graph:
    return load_archive(shared(f"reference/models/{name}.json"))


@cache
def memory() -> dict[str, dict[str, Any]]:
    entries = json.loads(shared("reference/scheme_memory.json").read_text())
    return {f"{e['model']}:{e['scheme']}": e for e in entries}


@pytest.mark.parametrize("key", PUBLISHED)
def test_memory_and_channel_counts_are_the_published_ones(key: str) -> None:
    graph, entry = network(key.split(":")[0]), memory()[key]
    selection = select(resolve_scheme(key, graph), graph)
    assert analytic_bits(graph, selection) == entry["total_bits"]
    for index, count in entry["n_keep"].items():
        layer = layers(graph)[int(index)]
        chosen = selection.weights.get(layer.weight.name, ())
        assert (layer.channels if chosen is None else len(chosen)) == count
    body = {layer.weight.name for layer in layers(graph) if not layer.is_head}
    assert len(body & set(selection.weights)) == sum(n > 0 for n in entry["n_keep"].values())
    assert len(selection.biases) == entry["n_bias"] + 1  # and the head's


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("entry, scheme", [("last6", "last:6"), ("last12", "last:12"), ("lastall", "full")])
def test_memory_of_the_last_layers_is_the_published_one(model: str, entry: str, scheme: str) -> None:
    graph = network(model)
    bits = analytic_bits(graph, select(resolve_scheme(scheme, graph), graph))
    assert round(bits / 8 / 1024, 2) == memory()[f"{model}:{entry}"]["KiB"]


@pytest.mark.parametrize(
    "vector, scheme",
    [
        ("mcunet-5fps_b1_sparse100kb_step1", "mcunet-5fps:99kb"),
        ("mcunet-5fps_b1_sparse49kb_5steps", "mcunet-5fps:49kb"),
        ("mcunet-5fps_b8_sparse100kb_10steps", "mcunet-5fps:99kb"),
        ("mbv2-w0.35_b8_sparse99kb_5steps", "mbv2-w0.35:99kb"),
        ("proxyless-w0.3_b8_sparse98kb_5steps", "proxyless-w0.3:98kb"),
    ],
)
def test_chosen_channels_are_those_of_the_reference(vector: str, scheme: str) -> None:
    graph = network(scheme.split(":")[0])
    ours = select(resolve_scheme(scheme, graph), graph).weights
    with np.load(shared(f"reference/{vector}.npz")) as archive:
        theirs = {k.split("/", 1)[1]: sorted(archive[k]) for k in archive.files if k.startswith("keep_idx/")}
    assert theirs
    for layer in layers(graph):
        name = layer.weight.name.removesuffix("/weight")
        if name in theirs:
            chosen = ours.get(layer.weight.name, ())
            assert list(range(layer.channels) if chosen is None else chosen) == theirs[name], name


def test_published_name_without_its_network_is_found_by_the_network() -> None:
    graph = network("mcunet-5fps")
    assert resolve_scheme("99kb", graph) == resolve_scheme("mcunet-5fps:99kb", graph)


def test_published_scheme_of_another_network_is_refused() -> None:
    for graph in (network("mbv2-w0.35"), small()):
        with pytest.raises(SchemeError, match="another network"):
            resolve_scheme("mcunet-5fps:49kb", graph)


def test_dead_channels_of_the_reference_networks_are_the_documented_ones() -> None:
    from trainlet.scheme.layers import alive

    counts = [
        sum(int((~alive(network(m), x)).sum()) for x in layers(network(m)) if not x.is_head) for m in MODELS
    ]
    assert counts == [62, 15, 33]
