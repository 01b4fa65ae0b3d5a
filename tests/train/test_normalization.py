"""Normalizations in a network: gradients by finite differences, and PyTorch's running statistics."""

from __future__ import annotations

import numpy as np
import pytest

from tests.train.finite import assert_gradients_match
from tests.train.networks import Case, Net, case, feeds, gradients
from tests.train.pytorch import torch
from trainlet.errors import GraphError, SchemeError
from trainlet.ir import Graph, interpret
from trainlet.scheme import resolve_scheme, select
from trainlet.scheme.layers import layers
from trainlet.train import Optimizer
from trainlet.train.parameters import parameters

F = torch.nn.functional


def test_layer_normalization_agrees_with_finite_differences() -> None:
    net = Net((2, 3, 4))
    scale = [net.normal("norm/gamma", (4,)), net.normal("norm/beta", (4,))]
    y = net.add("LayerNormalization", [net.operand("a"), *scale])
    assert_gradients_match(case(net.scored(net.add("Tanh", [y]))))


def test_layer_normalization_without_scale_agrees_with_finite_differences() -> None:
    net = Net((2, 3, 4))
    assert_gradients_match(case(net.scored(net.add("LayerNormalization", [net.operand("a")]))))


def test_expand_agrees_with_finite_differences() -> None:
    net = Net((2, 1, 4))
    y = net.add("Expand", [net.operand("a")], {"shape": (2, 3, 4)})
    assert_gradients_match(case(net.scored(net.add("Tanh", [y]))))


def normalized(shape: tuple[int, ...] = (3, 4, 4, 3)) -> Graph:
    """Convolution, BatchNorm, Relu, twice, and a head."""
    net, x = Net(shape, 2), None
    for i in (1, 2):
        w = net.normal(f"conv{i}/weight", (5, 3, 3, 3 if i == 1 else 5))
        attrs = {"pads": (1,) * 4}
        y = net.add("Conv", [x or net.x, w], attrs)
        operands = [net.normal(f"norm{i}/{what}", (5,)) for what in ("gamma", "beta", "mean")]
        operands.append(net.constant(f"norm{i}/var", np.linspace(0.5, 2, 5)))
        x = net.add("Clip", [net.add("BatchNormalization", [y, *operands], {"momentum": 0.3})], {"lo": 0.0})
    flat = net.add("Reshape", [net.add("AveragePool", [x], {"kernel": ()})], {"shape": (shape[0], 5)})
    return net.build(
        [net.add("Gemm", [flat, net.normal("head/weight", (4, 5)), net.normal("head/bias", (4,))])]
    )


def in_pytorch(graph: Graph, x: np.ndarray, frozen: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """Loss and leaves of `normalized`, after backward; BatchNorms not in `frozen` use batch statistics."""
    p = {k: torch.tensor(t.data, dtype=torch.float64) for k, t in graph.constants.items()}
    for name, tensor in p.items():
        tensor.requires_grad_(not name.endswith(("mean", "var")))
    y = torch.from_numpy(x).movedim(-1, 1)
    for i in (1, 2):
        y = F.conv2d(y, p[f"conv{i}/weight"].movedim(-1, 1), padding=1)
        n = {k: p[f"norm{i}/{k}"] for k in ("mean", "var", "gamma", "beta")}
        y = F.relu(F.batch_norm(y, *n.values(), i not in frozen, 0.3))
    y = F.linear(y.mean((2, 3)), p["head/weight"], p["head/bias"])
    return {**p, "logits": y}


def test_batch_normalization_agrees_with_pytorch() -> None:
    graph = normalized()
    given = case(graph, 1, loss="softmax-cross-entropy")
    p = in_pytorch(graph, given.feeds["x"])
    F.cross_entropy(p["logits"], torch.from_numpy(given.feeds["label"])).backward()
    found = gradients(given)
    for layer in layers(graph):
        np.testing.assert_allclose(found[layer.weight.name], p[layer.weight.name].grad, atol=1e-9)
    after = interpret(given.derive().functions["step"], given.feeds, real=np.float64).state
    for i in (1, 2):
        for what in ("gamma", "beta"):
            np.testing.assert_allclose(found[f"norm{i}/{what}"], p[f"norm{i}/{what}"].grad, atol=1e-9)
        for what in ("mean", "var"):  # PyTorch moved its buffers in place
            np.testing.assert_allclose(after[f"norm{i}/{what}.trained"], p[f"norm{i}/{what}"], atol=1e-9)


def test_batch_norms_before_what_is_trained_stay_as_in_evaluation() -> None:
    graph = normalized()
    chosen = select(resolve_scheme("last:1", graph), graph)  # conv2 and the head
    trained = [p.name for p in parameters(graph, chosen, Optimizer())]
    assert "norm2/mean" in trained and "norm1/mean" not in trained
    given = Case(
        graph,
        chosen,
        feeds(graph, np.random.default_rng(0), "softmax-cross-entropy"),
        "softmax-cross-entropy",
    )
    p = in_pytorch(graph, given.feeds["x"], frozen=(1,))
    F.cross_entropy(p["logits"], torch.from_numpy(given.feeds["label"])).backward()
    for name, d in gradients(given).items():
        if name not in ("norm2/mean", "norm2/var"):
            np.testing.assert_allclose(d, p[name].grad, atol=1e-9)


def test_full_trains_scales_and_offsets_and_head_trains_none() -> None:
    graph = normalized()
    full, head = (select(resolve_scheme(s, graph), graph) for s in ("full", "head"))
    assert {"norm1/gamma", "norm2/gamma"} <= set(full.weights) and "norm1/beta" in full.biases
    assert not any("norm" in name for name in (*head.weights, *head.biases))
    assert not any(p.statistic for p in parameters(graph, head, Optimizer()))


def test_predict_uses_the_running_statistics() -> None:
    graph = normalized()
    given = case(graph, 1, loss="softmax-cross-entropy")
    module = given.derive()
    after = interpret(module.functions["step"], {**given.feeds, "lr": np.zeros(1)}, real=np.float64).state
    predicted = interpret(module.functions["predict"], {"x": given.feeds["x"]}, after, np.float64).outputs[0]
    p = in_pytorch(graph, given.feeds["x"])  # moves the buffers once
    with torch.no_grad():
        moved = {k: v.numpy() for k, v in p.items() if k.endswith(("mean", "var"))}
    for name, value in moved.items():
        np.testing.assert_allclose(after[f"{name}.trained"], value, atol=1e-9)
    again = interpret(module.functions["predict"], {"x": given.feeds["x"]}, real=np.float64).outputs[0]
    assert np.abs(predicted - again).max() > 1e-3  # it reads what the step moved


def test_a_batch_of_one_value_a_channel_is_refused() -> None:
    with pytest.raises(GraphError, match="larger batch"):
        case(normalized((1, 1, 1, 3)), 1, loss="softmax-cross-entropy").derive()


def test_a_batch_normalization_that_is_used_twice_is_refused() -> None:
    net = Net((3, 4))
    names = ("gamma", "beta", "mean")
    operands = [*(net.normal(f"norm/{what}", (4,)) for what in names), net.constant("norm/var", np.ones(4))]
    once = net.add("BatchNormalization", [net.operand("a"), *operands])
    graph = net.scored(net.add("BatchNormalization", [once, *operands]))
    with pytest.raises(SchemeError, match="give it its own"):
        case(graph).derive()
