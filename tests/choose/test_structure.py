"""Blocks, parts and cuts are read off the graph."""

from __future__ import annotations

import numpy as np

from tests.choose.tasks import dataset
from tests.host.programs import network
from trainlet.api import Settings, build, prepare
from trainlet.choose.structure import cuts, last_cut_before, layer_infos, tail
from trainlet.scheme import layers


def test_parts_of_inverted_residuals_are_found_by_structure():
    parts = [(x.block, x.part) for x in layer_infos(network("residual", True))]
    assert [p for _, p in parts] == ["conv", "pw1", "dw", "pw2", "pw1", "dw", "pw2", "conv", "gemm"]
    blocks = [b for b, p in parts if p not in ("conv", "gemm")]
    assert blocks[:3] == [blocks[0]] * 3 and blocks[3:] == [blocks[3]] * 3 and blocks[0] != blocks[3]


def test_the_head_has_no_index_of_the_published_schemes():
    infos = layer_infos(network("residual", True))
    assert [x.conv_index for x in infos] == [*range(8), None]


def test_a_network_is_not_cut_inside_a_residual_block():
    graph, _ = prepare(network("residual", True), Settings("head"))
    names = [v.name for v in cuts(graph)]
    assert names[0] == "x" and any("sum1" in n for n in names) and any("sum2" in n for n in names)
    assert not any(n.startswith(("conv2", "conv3", "conv4", "conv5")) for n in names)


def test_the_last_cut_lies_before_every_reader_of_what_is_trained():
    graph, _ = prepare(network("residual", True), Settings("head"))
    places, infos = cuts(graph), layer_infos(graph)
    inside = places[last_cut_before(graph, places, {infos[2].weight})]
    assert inside.name == places[last_cut_before(graph, places, {infos[1].weight})].name
    both = last_cut_before(graph, places, {infos[7].weight, infos[2].weight})
    assert places[both].name == inside.name


def test_the_tail_of_a_network_computes_what_the_whole_does():
    graph, _ = prepare(network("residual", True), Settings("head"))
    x = dataset(graph).x_train.batch(np.arange(5))
    whole = build(graph, Settings("head"))
    expected = whole.predict(x)
    place = next(v for v in cuts(graph) if "sum1" in v.name)
    first = next(i.weight for i in layer_infos(graph) if i.part == "pw1" and i.index > 3)
    to_cut = build(graph, Settings(_training(first), "nearest"))
    behind = build(tail(graph, place), Settings("head"))
    at_cut = np.stack([to_cut.prefix("predict", row[None]).view(np.int8) for row in x])
    np.testing.assert_array_equal(behind.predict(at_cut.reshape(5, *place.shape[1:])), expected)


def _training(weight: str):
    from trainlet.scheme import UpdateScheme
    from trainlet.scheme.scheme import Channels

    return UpdateScheme("one", {weight: Channels(share=1.0)})


def test_layers_whose_channels_cannot_be_chosen_are_marked():
    graph = network("excited", False)
    marked = {x.weight for x in layer_infos(graph) if x.whole_only}
    assert marked == {x.weight.name for x in layers(graph) if x.node.attrs.get("groups") == 2} != set()
