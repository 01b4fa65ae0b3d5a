"""A chain of gradients through a hidden layer, against PyTorch's own differentiation of the block."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest

from trainlet.ir import Graph, interpret, verify
from trainlet.ir.ops.hidden import encode, parts
from trainlet.ir.text import parse_graph
from trainlet.passes.hidden import group_hidden

BLOCK = """graph g(dy: f32[2,3,4,5], x: f32[2,6,7,3], m: u1[2,3,4,40], n: u1[2,6,7,40], lr: f32[1]) {
  const project: f32[5,1,1,40]
  state depthwise: f32[40,3,3,1]
  state bias: f32[40]
  state expand: f32[40,1,1,3]
  const h: f32[2,6,7,40]
  a: f32[2,3,4,40] = ConvInputGrad(dy, project) {x_shape=(2, 3, 4, 40)}
  b: f32[2,3,4,40] = MaskGrad(a, m)
  c: f32[2,6,7,40] = ConvInputGrad(b, depthwise)
    {groups=40, pads=(1, 1, 1, 1), strides=(2, 2), x_shape=(2, 6, 7, 40)}
  d: f32[2,6,7,40] = MaskGrad(c, n)
  dx: f32[2,6,7,3] = ConvInputGrad(d, expand, x) {x_shape=(2, 6, 7, 3)}
  depthwise.next: f32[40,3,3,1] = ConvWeightGradUpdate(h, b, _, depthwise, lr)
    {depthwise=True, groups=40, kernel=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2)}
  bias.next: f32[40] = BiasGradUpdate(d, bias, lr)
  expand.next: f32[40,1,1,3] = ConvWeightGradUpdate(x, d, _, expand, lr) {kernel=(1, 1)}
  return dx
  update depthwise <- depthwise.next
  update bias <- bias.next
  update expand <- expand.next
}"""


def block(rng: np.random.Generator) -> Graph:
    shapes = {
        "project": (5, 1, 1, 40), "depthwise": (40, 3, 3, 1), "bias": (40,), "expand": (40, 1, 1, 3),
        "h": (2, 6, 7, 40),
    }  # fmt: skip
    return parse_graph(BLOCK, {k: rng.normal(0, 1, s).astype(np.float32) for k, s in shapes.items()})


def test_hidden_grad_is_the_gradient_of_the_block() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    graph = block(rng)
    grouped = verify(group_hidden(graph))
    assert [n.op for n in grouped.nodes] == ["HiddenGrad"]
    feeds = {
        "dy": rng.normal(0, 1, (2, 3, 4, 5)), "x": rng.normal(0, 1, (2, 6, 7, 3)),
        "m": rng.random((2, 3, 4, 40)) < 0.7, "n": rng.random((2, 6, 7, 40)) < 0.7, "lr": np.array([0.5]),
    }  # fmt: skip
    given = {k: v.astype(np.float32) if v.dtype == float else v for k, v in feeds.items()}
    found = interpret(grouped, given, real=np.float64)

    def first(a):  # NHWC, OHWI -> NCHW, OIHW
        return torch.tensor(np.moveaxis(np.asarray(a, np.float64), -1, 1))

    values = {k: t.data for k, t in {**graph.constants, **graph.state}.items()}
    expand, depthwise = (first(values[k]).requires_grad_() for k in ("expand", "depthwise"))
    x, bias = (
        first(given["x"]).requires_grad_(),
        torch.tensor(values["bias"].astype(float), requires_grad=True),
    )
    conv = torch.nn.functional.conv2d
    hidden = first(values["h"]) + (made := conv(x, expand, bias) * first(given["n"])) - made.detach()
    z = conv(hidden, depthwise, stride=2, padding=1, groups=40) * first(given["m"])
    (conv(z, first(values["project"])) * first(given["dy"])).sum().backward()
    assert np.allclose(
        found.outputs[0], np.moveaxis(x.grad.numpy(), 1, -1) + given["x"], rtol=1e-6, atol=1e-6
    )
    for name, t in (("expand", expand), ("depthwise", depthwise)):
        step = values[name] - 0.5 * np.moveaxis(t.grad.numpy(), 1, -1)
        assert np.allclose(found.state[name], step, rtol=1e-5, atol=1e-5), name
    assert np.allclose(found.state["bias"], values["bias"] - 0.5 * bias.grad.numpy(), rtol=1e-5, atol=1e-5)


def test_parts_are_the_nodes_that_went_in() -> None:
    nodes = block(np.random.default_rng(1)).nodes
    operands, attrs = encode(nodes, 4)
    assert operands[1] is not None and operands[1].name == "x"  # dx is added to it
    assert parts(operands, MappingProxyType(attrs)) == list(nodes)
