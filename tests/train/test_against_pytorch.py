"""fp32 gradients against PyTorch's autograd: single convolutions and pools, and a residual network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.networks import Net, Sliding, case, gradients, seeds, slidings
from tests.train.pytorch import torch
from trainlet.ir import Graph

F = torch.nn.functional
QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def leaves(graph: Graph) -> dict[str, torch.Tensor]:
    return {k: torch.tensor(t.data, requires_grad=True) for k, t in graph.constants.items()}


def assert_close(ours: Mapping[str, np.ndarray], theirs: Mapping[str, torch.Tensor]) -> None:
    for name, d in ours.items():
        expected = theirs[name].grad.numpy()
        assert d.shape == expected.shape
        assert np.abs(d - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-3), name


def padded(x: torch.Tensor, s: Sliding, value: float = 0.0) -> torch.Tensor:
    """x (N, *S, C) as (N, C, *S), padded as ONNX says."""
    begin, end = s.pads[: len(s.kernel)], s.pads[len(s.kernel) :]
    sides = [p for pair in zip(begin[::-1], end[::-1]) for p in pair]
    return F.pad(x.movedim(-1, 1), sides, value=value)


@given(slidings((1, 2), 6, True, True), st.sampled_from([1, 2, 3, 6]), seeds)
@QUICK
def test_convolution_agrees_with_pytorch(s: Sliding, groups: int, seed: int) -> None:
    net = Net(s.x, seed)
    w = net.normal("conv/weight", (6, *s.kernel, 6 // groups))
    attrs = {**s.attrs, "dilations": s.dilations, "groups": groups}
    y = net.add("Conv", [net.operand("pre"), w, net.normal("conv/bias", (6,))], attrs)
    given_case = case(net.scored(y), seed)
    p = leaves(given_case.graph)
    x = torch.tensor(given_case.feeds["x"], dtype=torch.float32)
    x = padded(x @ p["pre/weight"].T + p["pre/bias"], s)
    convolve = F.conv1d if len(s.kernel) == 1 else F.conv2d
    y = convolve(x, p["conv/weight"].movedim(-1, 1), p["conv/bias"], s.strides, 0, s.dilations, groups)
    target = torch.tensor(given_case.feeds["label"], dtype=torch.float32)
    F.mse_loss(y.movedim(1, -1).flatten(1), target).backward()
    assert_close(gradients(given_case, np.float32), p)


@given(st.sampled_from(["MaxPool", "AveragePool"]), slidings((1, 2), 3, False, False), seeds)
@QUICK
def test_pool_agrees_with_pytorch(op: str, s: Sliding, seed: int) -> None:
    net = Net(s.x, seed)
    attrs = {**s.attrs, "kernel": s.kernel, "count_include_pad": True}
    given_case = case(net.scored(net.add(op, [net.operand("pre")], attrs)), seed)
    p = leaves(given_case.graph)
    x = torch.tensor(given_case.feeds["x"], dtype=torch.float32) @ p["pre/weight"].T + p["pre/bias"]
    name = f"{'max' if op == 'MaxPool' else 'avg'}_pool{len(s.kernel)}d"
    y = getattr(F, name)(padded(x, s, -np.inf if op == "MaxPool" else 0.0), s.kernel, s.strides)
    target = torch.tensor(given_case.feeds["label"], dtype=torch.float32)
    F.mse_loss(y.movedim(1, -1).flatten(1), target).backward()
    assert_close(gradients(given_case, np.float32), p)


def residual_network() -> Graph:
    """Stem, depthwise block with a shortcut, squeeze and excite, pool, head: all of MobileNetV3's parts."""
    net = Net((4, 8, 8, 3), 5)

    def conv(x, outputs: int, name: str, kernel: int = 1, stride: int = 1, groups: int = 1):
        w = net.normal(f"{name}/weight", (outputs, kernel, kernel, x.shape[-1] // groups))
        attrs = {"strides": (stride,) * 2, "pads": (kernel // 2,) * 4, "groups": groups}
        return net.add("Conv", [x, w, net.normal(f"{name}/bias", (outputs,))], attrs, name=name)

    a = net.add("HardSwish", [conv(net.x, 6, "stem", 3, 2)])
    h = net.add("Clip", [conv(a, 12, "expand")], {"lo": 0.0, "hi": 6.0})
    h = net.add("Clip", [conv(h, 12, "depthwise", 3, groups=12)], {"lo": 0.0})
    gate = net.add("AveragePool", [h], {"kernel": ()})
    gate = net.add("HardSigmoid", [conv(gate, 12, "excite")], {"alpha": 1 / 6, "beta": 0.5})
    a = net.add("Add", [a, conv(net.add("Mul", [h, gate]), 6, "project")])
    flat = net.add("Reshape", [net.add("AveragePool", [a], {"kernel": ()})], {"shape": (4, 6)})
    w, b = net.normal("head/weight", (5, 6)), net.normal("head/bias", (5,))
    return net.build([net.add("Gemm", [flat, w, b])])


def residual_in_pytorch(x: torch.Tensor, p: Mapping[str, torch.Tensor]) -> torch.Tensor:
    def conv(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        w = p[f"{name}/weight"].movedim(-1, 1)
        return F.conv2d(x, w, p[f"{name}/bias"], stride, w.shape[-1] // 2, 1, groups)

    a = F.hardswish(conv(x.movedim(-1, 1), "stem", 2))
    h = F.relu(conv(F.relu6(conv(a, "expand")), "depthwise", groups=12))
    gate = F.hardsigmoid(conv(h.mean((2, 3), keepdim=True), "excite"))
    a = a + conv(h * gate, "project")
    return a.mean((2, 3)) @ p["head/weight"].T + p["head/bias"]


def test_residual_network_agrees_with_pytorch() -> None:
    given_case = case(residual_network(), 5, loss="softmax-cross-entropy")
    p = leaves(given_case.graph)
    y = residual_in_pytorch(torch.tensor(given_case.feeds["x"], dtype=torch.float32), p)
    F.cross_entropy(y, torch.tensor(given_case.feeds["label"])).backward()
    assert_close(gradients(given_case, np.float32), p)


@pytest.mark.parametrize("depthwise", [False, True])
def test_channel_subset_is_a_part_of_pytorchs_gradient(depthwise: bool) -> None:
    chosen = {"depthwise/weight": (0, 3, 7)} if depthwise else {"project/weight": (1, 2, 11)}
    given_case = case(residual_network(), 5, chosen, "softmax-cross-entropy")
    p = leaves(given_case.graph)
    y = residual_in_pytorch(torch.tensor(given_case.feeds["x"], dtype=torch.float32), p)
    F.cross_entropy(y, torch.tensor(given_case.feeds["label"])).backward()
    found = gradients(given_case, np.float32)
    for name, (d, indices) in {n: (found.pop(n), list(i)) for n, i in chosen.items()}.items():
        whole = p[name].grad.numpy()
        expected = whole[indices] if depthwise else whole[..., indices]
        assert np.abs(d - expected).max() <= 1e-4 * np.abs(whole).max()
    assert_close(found, p)
