"""Int8 adjoints against PyTorch, where rounding passes a gradient and saturation stops it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.int8_networks import (
    Int8Net,
    assert_agrees,
    centred,
    conv_in_pytorch,
    rounded,
    saturated,
)
from tests.train.networks import case, seeds, slidings
from tests.train.pytorch import torch
from trainlet.ir import Quant, interpret
from trainlet.train import Optimizer

F = torch.nn.functional
QUICK = settings(max_examples=20, deadline=None, derandomize=True)
SHAPE = (2, 5, 4, 6)


def real(x: torch.Tensor, value) -> torch.Tensor:
    return (centred(x, value) * value.quant.scale).flatten(1)


@given(slidings((2,), 6, True, True), st.sampled_from([1, 2, 6]), st.booleans(), seeds)
@QUICK
def test_convolution_agrees_with_straight_through_rounding(s, groups: int, part: bool, seed: int) -> None:
    net = Int8Net(s.x, seed)
    attrs = {**s.attrs, "dilations": s.dilations, "groups": groups}
    first = net.conv(net.x, 6, "first")
    second = net.conv(first, 6, "second", s.kernel, attrs)

    def emulated(p, x):
        a = conv_in_pytorch(net, p, x, net.x, "first")
        return real(conv_in_pytorch(net, p, a, first, "second"), second)

    chosen = {"second/weight": (1, 4)} if part and groups != 2 else None
    assert_agrees(net.scored(second), emulated, seed, chosen)


def test_some_outputs_saturate_and_stop_the_gradient() -> None:
    net = Int8Net(SHAPE, 1)
    graph = net.scored(net.conv(net.x, 6, "conv"))
    given_case = case(graph, 1)
    run = interpret(given_case.derive().functions["step"], given_case.feeds).values
    assert 0.01 < 1 - run["conv.mask"].mean() < 0.6
    assert (run["d_conv/acc"][~run["conv.mask"]] == 0).all()
    assert (run["d_conv/acc"][run["conv.mask"]] != 0).any()


@given(seeds)
@QUICK
def test_sum_agrees_with_straight_through_rounding(seed: int) -> None:
    net = Int8Net(SHAPE, seed)
    a = net.conv(net.x, 6, "a")
    b = net.conv(a, 6, "b")
    total = net.add("QLinearAdd", [a, b], quant=net.quant())

    def emulated(p, x):
        ta = conv_in_pytorch(net, p, x, net.x, "a")
        tb = conv_in_pytorch(net, p, ta, a, "b")
        sum_ = centred(ta, a) * np.float32(a.quant.scale) + centred(tb, b) * np.float32(b.quant.scale)
        return real(saturated(sum_ / np.float32(total.quant.scale), total.quant), total)

    assert_agrees(net.scored(total), emulated, seed)


@given(st.booleans(), seeds)
@QUICK
def test_product_agrees_with_straight_through_rounding(gate: bool, seed: int) -> None:
    net = Int8Net(SHAPE, seed)
    a = net.conv(net.x, 6, "a")
    pooled = net.add("AveragePool", [a], {"kernel": ()}, quant=a.quant) if gate else a
    b = net.conv(pooled, 6, "b")
    y = net.add("QLinearMul", [a, b], quant=Quant(20.0, -3))
    scale = np.float32(np.float64(a.quant.scale) * b.quant.scale / y.quant.scale)

    def emulated(p, x):
        ta = conv_in_pytorch(net, p, x, net.x, "a")
        tp = rounded(ta.mean((1, 2), keepdim=True)) if gate else ta
        tb = conv_in_pytorch(net, p, tp, pooled, "b")
        return real(saturated(centred(ta, a) * centred(tb, b) * scale, y.quant), y)

    assert_agrees(net.scored(y), emulated, seed)


def test_square_gets_both_gradients() -> None:
    net = Int8Net(SHAPE, 4)
    a = net.conv(net.x, 6, "a")
    y = net.add("QLinearMul", [a, a], quant=Quant(20.0, -3))
    scale = np.float32(a.quant.scale**2 / y.quant.scale)

    def emulated(p, x):
        ta = conv_in_pytorch(net, p, x, net.x, "a")
        return real(saturated(centred(ta, a) ** 2 * scale, y.quant), y)

    assert_agrees(net.scored(y), emulated, 4)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("include_pad", [False, True])
def test_pool_agrees_with_straight_through_rounding(op: str, include_pad: bool) -> None:
    net = Int8Net(SHAPE, 2)
    a = net.conv(net.x, 6, "a")
    attrs = {"kernel": (3, 2), "strides": (2, 2), "pads": (1, 1, 1, 1), "count_include_pad": include_pad}
    y = net.add(op, [a], attrs, quant=a.quant)

    def emulated(p, x):
        t = conv_in_pytorch(net, p, x, net.x, "a").movedim(-1, 1)
        if op == "MaxPool":
            pooled = F.max_pool2d(F.pad(t, (1, 1, 1, 1), value=-np.inf), (3, 2), 2)
        else:  # padding is zero in real numbers, that is the zero point in integers
            zero = a.quant.zero_point
            sums = F.avg_pool2d(F.pad(t - zero, (1, 1, 1, 1)), (3, 2), 2, divisor_override=1)
            ones = F.pad(torch.ones_like(t), (1, 1, 1, 1), value=float(include_pad))
            counts = F.avg_pool2d(ones, (3, 2), 2, divisor_override=1)
            pooled = rounded(((sums + zero * counts).double() / counts).float())
        return real(pooled.movedim(1, -1), y)

    assert_agrees(net.scored(y), emulated, 2)


def test_lookup_has_the_slope_of_its_table() -> None:
    net = Int8Net(SHAPE, 3)
    a = net.conv(net.x, 6, "a")
    entries = np.clip(np.rint(127 * np.tanh(np.arange(-128, 128) / 40) + 3), -128, 127)
    y = net.add("QLinearLookup", [a, net.constant("table", entries, "s8")], quant=Quant(1 / 128, 3))
    slopes = np.empty(256, np.float32)
    slopes[1:-1], slopes[0], slopes[-1] = (entries[2:] - entries[:-2]) / 2, *np.diff(entries)[[0, -1]]

    def emulated(p, x):
        t = conv_in_pytorch(net, p, x, net.x, "a")
        at = t.detach().long() + 128
        linear = torch.tensor(slopes)[at] * (t - t.detach())
        return real(torch.tensor(entries, dtype=torch.float32)[at] + linear, y)

    assert_agrees(net.scored(y), emulated, 3)


def test_conversion_to_float_and_back_agrees_with_straight_through_rounding() -> None:
    net = Int8Net(SHAPE, 6)
    a = net.conv(net.x, 6, "a")
    f = net.add("Tanh", [net.add("DequantizeLinear", [a])])
    y = net.add("QuantizeLinear", [f], quant=Quant(1 / 200, -100))

    def emulated(p, x):
        t = torch.tanh(centred(conv_in_pytorch(net, p, x, net.x, "a"), a) * np.float32(a.quant.scale))
        return real(saturated(t / np.float32(y.quant.scale), y.quant), y)

    assert_agrees(net.scored(y), emulated, 6)


def test_moves_of_int8_values_carry_the_gradient_back() -> None:
    net = Int8Net(SHAPE, 8)
    a = net.conv(net.x, 6, "a")
    q = a.quant
    y = net.add("Concat", [a, a], {"axis": 3}, quant=q)
    y = net.add("Pad", [y], {"pads": (0, 1, 0, 0, 0, 0, 2, 0), "value": q.zero_point}, quant=q)
    y = net.add("Slice", [y], {"starts": (0, 0, 1, 2), "sizes": (2, 5, 4, 9)}, quant=q)
    y = net.add("Transpose", [y], {"perm": (0, 3, 1, 2)}, quant=q)

    def emulated(p, x):
        t = conv_in_pytorch(net, p, x, net.x, "a")
        t = F.pad(torch.cat([t, t], 3), (0, 0, 0, 2, 1, 0), value=float(q.zero_point))
        return real(t[:, 0:5, 1:5, 2:11].permute(0, 3, 1, 2), y)

    assert_agrees(net.scored(y), emulated, 8)


def test_matrix_product_of_int8_rows_agrees_with_straight_through_rounding() -> None:
    net = Int8Net((3, 7), 9)
    a = net.conv(net.x, 5, "a", ())

    def emulated(p, x):
        total = (centred(x, net.x) @ p["a/weight"].T + p["a/bias"]) * p["a/eff"]
        return real(saturated(total, a.quant), a)

    assert_agrees(net.scored(a), emulated, 9)


def test_weight_gradient_subtracts_the_zero_point() -> None:
    net = Int8Net((1, 1, 1, 3))
    given_case = case(net.scored(net.conv(net.x, 2, "a")))
    x = np.full((1, 1, 1, 3), net.x.quant.zero_point)
    step = given_case.derive().functions["step"]
    d = interpret(step, {**given_case.feeds, "x": x}).values["d_a/weight"]
    assert (d == 0).all()  # a real input of zero


@pytest.mark.parametrize("master", ["fp32", "nearest", "stochastic", "residual"])
def test_dead_channels_are_never_updated(master: str) -> None:
    net = Int8Net(SHAPE, 5)
    y = net.conv(net.conv(net.x, 6, "first"), 8, "second", (3, 3), {"pads": (1,) * 4}, dead=(2, 7))
    given_case = case(net.scored(y), 5)
    optimizer = Optimizer("momentum", master, weight_decay=0.1)
    module = given_case.derive(optimizer)
    after = interpret(module.functions["step"], {**given_case.feeds, "lr": np.full(1, 1e-4)}).state
    for p in module.parameters:
        if p.layer.weight.name == "second/weight":
            for t in p.tensors.values():
                assert np.array_equal(after[t.value.name][[2, 7]], t.data[[2, 7]]), t.value.name
            w = p.tensors["w"]
            assert not np.array_equal(after[w.value.name], w.data) or master != "fp32"


def test_quantization_aware_scaling_is_plain_sgd_on_the_real_weights() -> None:
    net = Int8Net(SHAPE, 7)
    given_case = case(net.scored(net.conv(net.x, 6, "a")), 7)
    module = given_case.derive()
    run = interpret(module.functions["step"], {**given_case.feeds, "lr": np.full(1, 0.01)}, real=np.float64)
    w_scale = given_case.graph.constants["a/scale"].data.astype(np.float64)
    for p in module.parameters:
        scale = w_scale if p.name == "a/weight" else w_scale * 0.5  # the input's scale
        scale = scale.reshape(-1, *(1,) * (len(p.shape) - 1))
        d = run.values[f"d_{p.name}" if p.name == "a/weight" else f"d_{p.name}.trained"]
        moved = p.tensors["w"].data - run.state[p.tensors["w"].value.name]
        # real weight w s, real gradient d / s: a step of lr d / s in real numbers is lr d / s^2 here
        np.testing.assert_allclose(moved * scale, 0.01 * d / scale, rtol=1e-6)
