"""The yardstick: one training step of an int8 network in PyTorch eager, on floats that hold its integers.

A convolution runs on (x - zero) with integer-valued weights, then scale, round (straight through), clamp
(whose own gradient is the clamp mask); fp32 masters are rounded at each forward, biases are not. Only the
parameters of the scheme require a gradient, what lies before them runs under no_grad, and quantization-aware
scaling and the SGD step are included: what a user of the published simulation pays for a step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainlet import api
from trainlet.ir import Graph, Node, Value
from trainlet.train.parameters import Optimizer, Parameter, parameters


class _Round(torch.autograd.Function):
    """Half to even; the gradient passes as if nothing had been rounded."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: object, dy: Tensor) -> Tensor:
        return dy


def _oihw(weight: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(weight, -1, 1)) if weight.ndim == 4 else weight


class Trained:
    """One trained tensor: its master, and where it belongs in the network's constant."""

    def __init__(self, p: Parameter) -> None:
        self.rounded = p.integer and p.factory.ndim > 1
        data = p.tensors["w"].data.astype(np.float32)
        self.master = torch.tensor(_oihw(data), requires_grad=True)
        self.axis = 0 if p.layer.depthwise else 1
        self.whole = torch.tensor(_oihw(p.factory.astype(np.float32)))
        self.channels = None if p.channels is None else torch.tensor(p.channels)
        shape = (-1, *(1,) * (self.master.ndim - 1))
        self.scale = None if p.row_scale is None else torch.tensor(p.row_scale).reshape(shape)

    def value(self) -> Tensor:
        """The tensor as the network reads it."""
        w = _Round.apply(self.master) if self.rounded else self.master
        return w if self.channels is None else self.whole.index_copy(self.axis, self.channels, w)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        assert self.master.grad is not None
        grad = self.master.grad if self.scale is None else self.master.grad * self.scale
        self.master -= lr * grad
        self.master.grad = None


class TorchStep:
    """The training step of a network with a new head under a scheme; masters are floats, as published.

    `channels_last` is PyTorch's other memory layout; it computes the same.
    """

    def __init__(self, graph: Graph, settings: api.Settings, channels_last: bool = False) -> None:
        graph, selection = api.prepare(graph, settings)
        found = parameters(graph, selection, Optimizer(settings.optimizer, "fp32"))
        self.graph, self.trained = graph, {p.name: Trained(p) for p in found}
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        frozen = {k: t for k, t in graph.constants.items() if k not in self.trained}
        self.constants = {k: self._tensor(_oihw(t.data.astype(np.float32))) for k, t in frozen.items()}
        self.scales = {v.name: float(graph.scales(v)) for v in self._activations()}
        self.moving = self._moving()

    def _tensor(self, array: np.ndarray) -> Tensor:
        t = torch.tensor(array)
        return t.to(memory_format=self.layout) if t.ndim == 4 else t

    def _activations(self) -> list[Value]:
        made = [v for n in self.graph.nodes for v in n.outputs]
        return [v for v in (self.graph.inputs[0], *made) if v.quant is not None]

    def _moving(self) -> set[str]:
        """Values that depend on a trained tensor."""
        found = set(self.trained)
        for node in self.graph.nodes:
            if any(v.name in found for v in node.operands()):
                found |= {v.name for v in node.outputs}
        return found

    def step(self, samples: np.ndarray, labels: np.ndarray, lr: float) -> float:
        """Forward, backward and update on a batch (s8, channels last); the loss before it."""
        x = torch.from_numpy(samples).permute(0, 3, 1, 2).to(torch.float32, memory_format=self.layout)
        values: dict[str, Tensor] = {self.graph.inputs[0].name: x, **self.constants}
        for node in self.graph.nodes:
            with torch.set_grad_enabled(node.output.name in self.moving):
                for v in node.operands():
                    if v.name in self.trained and v.name not in values:
                        values[v.name] = self.trained[v.name].value()
                values[node.output.name] = OPS[node.op](self, node, [values[v.name] for v in node.operands()])
        logits = values[self.graph.outputs[0].name]
        loss = functional.cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)))
        loss.backward()
        for trained in self.trained.values():
            trained.step(lr)
        return float(loss.detach())

    def zero(self, value: Value | None) -> float:
        assert value is not None and value.quant is not None
        return float(value.quant.zero_point)

    def scale(self, value: Value | None) -> float:
        assert value is not None
        return self.scales[value.name]

    def quantized(self, v: Tensor, out: Value) -> Tensor:
        return torch.clamp(_Round.apply(v) + self.zero(out), -128, 127)


def _convolve(net: TorchStep, node: Node, x: list[Tensor]) -> Tensor:
    """Padding is zero after the zero point is gone, so it is the padding of the real numbers."""
    top, left = node.attrs["pads"][:2]  # type: ignore[index]
    stride, groups = node.attrs["strides"], node.attrs.get("groups", 1)
    centred = x[0] - net.zero(node.inputs[0])
    return functional.conv2d(centred, x[1], None, stride, (top, left), 1, groups)  # type: ignore[arg-type]


def _requantize(net: TorchStep, node: Node, x: list[Tensor]) -> Tensor:
    accumulator, bias, scale = x
    return net.quantized((accumulator + bias[:, None, None]) * scale[:, None, None], node.output)


def _add(net: TorchStep, node: Node, x: list[Tensor]) -> Tensor:
    a, b = ((t - net.zero(v)) * net.scale(v) for t, v in zip(x, node.inputs, strict=True))
    return net.quantized((a + b) / net.scale(node.output), node.output)


def _pool(net: TorchStep, node: Node, x: list[Tensor]) -> Tensor:
    return _Round.apply(x[0].mean((2, 3), keepdim=True))


def _dequantize(net: TorchStep, node: Node, x: list[Tensor]) -> Tensor:
    return (x[0] - net.zero(node.inputs[0])) * net.scale(node.inputs[0])


OPS: dict[str, Callable[[TorchStep, Node, list[Tensor]], Tensor]] = {
    "ConvInteger": _convolve,
    "Requantize": _requantize,
    "QLinearAdd": _add,
    "AveragePool": _pool,
    "DequantizeLinear": _dequantize,
    "Reshape": lambda net, node, x: x[0].flatten(1),
    "Gemm": lambda net, node, x: functional.linear(x[0], x[1], x[2]),
}
