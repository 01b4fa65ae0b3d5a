"""The same network for another batch size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from tests.passes.texts import assert_becomes
from tests.train.random_networks import networks
from trainlet.errors import ModelError
from trainlet.ir import Graph, interpret
from trainlet.ir.text import parse_graph
from trainlet.passes.rebatch import rebatch


def test_every_activation_gets_the_batch() -> None:
    assert_becomes(
        lambda g: rebatch(g, 3),
        """graph g(x: s8[1,2,2,4] q(0.5, 3)) {
          const w: f32[3,16]
          r: f32[1,2,2,4] = DequantizeLinear(x) @"net:/features"
          part: f32[1,1,2,4] = Slice(r) {starts=(0, 0, 0, 0), sizes=(1, 1, 2, 4)}
          both: f32[1,2,2,4] = Concat(part, part) {axis=1}
          flat: f32[1,16] = Reshape(both) {shape=(1, 16)}
          y: f32[1,3] = Gemm(flat, w)
          return y
        }""",
        """graph g(x: s8[3,2,2,4] q(0.5, 3)) {
          const w: f32[3,16]
          r: f32[3,2,2,4] = DequantizeLinear(x) @"net:/features"
          part: f32[3,1,2,4] = Slice(r) {starts=(0, 0, 0, 0), sizes=(3, 1, 2, 4)}
          both: f32[3,2,2,4] = Concat(part, part) {axis=1}
          flat: f32[3,16] = Reshape(both) {shape=(3, 16)}
          y: f32[3,3] = Gemm(flat, w)
          return y
        }""",
    )


@pytest.mark.parametrize(
    "line",
    [
        "y: f32[4,2] = Reshape(x) {shape=(4, 2)}",
        "y: f32[4,2] = Transpose(x) {perm=(1, 0)}",
        "y: f32[1,4] = ReduceSum(x) {shape=(1, 4)}",
        "y: f32[4,4] = Concat(x, x) {axis=0}",
    ],
)
def test_layer_that_mixes_samples_is_named(line: str) -> None:
    graph = parse_graph(f'graph g(x: f32[2,4]) {{ {line} @"net:/mix" return y }}')
    with pytest.raises(ModelError, match="net:/mix"):
        rebatch(graph, 3)


@given(networks((1,)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_batch_computes_what_its_samples_compute_alone(graph: Graph) -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, *graph.inputs[0].shape[1:]))
    together = interpret(rebatch(graph, 3), {"x": x}).outputs[0]
    alone = np.concatenate([interpret(graph, {"x": x[i : i + 1]}).outputs[0] for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
