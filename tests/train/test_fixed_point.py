"""Gradients of fixed-point networks: those of the real numbers that the integers stand for."""

from __future__ import annotations

import numpy as np
import pytest

from trainlet.ir import Graph, GraphBuilder, Quant, interpret
from trainlet.ir.fixed_point import rescaling
from trainlet.scheme import resolve_scheme, select
from trainlet.train import derive


def network(fixed: bool, w_zero: int, groups: int = 1, lo: int = -128) -> Graph:
    """Two convolutions and a float head; weights centred in advance where w_zero is 0."""
    rng, b = np.random.default_rng(0), GraphBuilder("net")
    x = b.input("x", "s8", (2, 5, 5, 6), Quant(0.05, 3))
    for name, g in (("a", 1), ("b", groups)):
        centered = rng.integers(-60, 60, (6, 3, 3, 6 // g))
        scales = rng.uniform(0.002, 0.004, 6).astype(np.float32)
        held = b.constant(f"{name}/scale", scales)
        w = b.constant(f"{name}/w", centered + w_zero, "s8", Quant(held.name, w_zero, 0))
        bias = b.constant(f"{name}/b", rng.integers(-900, 900, 6), "s32")
        factors = scales.astype(np.float64) * x.quant.scale / 0.04
        scale = b.constant(f"{name}/f", rescaling(factors) if fixed else factors.astype(np.float32))
        attrs = {"pads": (1,) * 4, "groups": g, "w_zero": w_zero}
        acc = b.add("ConvInteger", [x, w], attrs, name=f"{name}.acc")
        how = {"lo": lo} if fixed else {}
        x = b.add("Requantize", [acc, bias, scale], how, name=name, quant=Quant(0.04, -10))
    x = b.add("AveragePool", [x], {"kernel": ()}, name="pooled", quant=x.quant)
    x = b.add("Reshape", [b.add("DequantizeLinear", [x])], {"shape": (2, 6)})
    return b.build([b.add("Gemm", [x, b.constant("head/w", rng.normal(0, 1, (3, 6)))], name="logits")])


def gradients(graph: Graph) -> dict[str, np.ndarray]:
    step = derive(graph, select(resolve_scheme("full", graph), graph)).functions["step"]
    samples = np.random.default_rng(1).integers(-128, 128, (2, 5, 5, 6)).astype(np.int8)
    values = interpret(step, {"x": samples, "label": np.array([0, 2]), "lr": [0.0]}).values
    return {k: v for k, v in values.items() if k.startswith(("d_a/", "d_b/", "d_a", "d_head"))}


@pytest.mark.parametrize("groups", [1, 6])
def test_a_zero_point_of_weights_changes_no_gradient(groups):
    plain, shifted = gradients(network(True, 0, groups)), gradients(network(True, 37, groups))
    assert set(plain) == set(shifted)
    assert len(plain) > 5
    for name in plain:
        np.testing.assert_array_equal(plain[name], shifted[name])


@pytest.mark.parametrize("groups", [1, 6])
def test_fixed_point_has_the_gradient_of_the_real_scale(groups):
    real, fixed = gradients(network(False, 0, groups)), gradients(network(True, 0, groups))
    for name in fixed:
        size = np.abs(real[name]).max()
        assert np.abs(real[name] - fixed[name]).max() <= 0.02 * size, name


def test_a_narrower_clamp_passes_no_gradient_beyond_it():
    values = gradients(network(True, 0, lo=100))
    assert not values["d_b/b.trained"].any()


def test_dead_channels_are_those_whose_centered_weights_are_zero():
    from trainlet.ir import Tensor
    from trainlet.scheme.layers import alive, layers

    graph = network(True, 37)
    held = graph.constants["a/w"]
    data = held.data.copy()
    data[2] = 37
    graph = Graph(**{**vars(graph), "constants": {**graph.constants, "a/w": Tensor(held.value, data)}})
    assert alive(graph, layers(graph)[0]).tolist() == [True, True, False, True, True, True]
