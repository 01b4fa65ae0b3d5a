"""Calls of normalization kernels."""

from __future__ import annotations

from collections.abc import Iterable

from trainlet.backends.c99.writer import Writer, kernel, number
from trainlet.ir import Node


def _sizes(n: Node, operand: int = 0) -> str:
    """rows, channels"""
    x = n.inputs[operand]
    assert x is not None
    return f"{x.size // x.shape[-1]}, {x.shape[-1]}"


def _channel_bytes(n: Node, lanes: int) -> int:
    x = n.inputs[0]
    assert x is not None
    return 4 * x.shape[-1]


def _eps(n: Node) -> str:
    return number(float(n.attrs["eps"]))  # type: ignore[arg-type]


@kernel("LayerNormalization")
def layer_norm(c: Writer, n: Node) -> Iterable[str]:
    operands = ", ".join(c.ptr(n.input(i)) for i in range(3))
    yield f"tl_layer_norm_f32({operands}, {_eps(n)}, {_sizes(n)}, {c.ptr(n.output)});"


@kernel("LayerNormInputGrad")
def layer_norm_input_grad(c: Writer, n: Node) -> Iterable[str]:
    operands = ", ".join(c.ptr(n.input(i)) for i in range(3))
    yield f"tl_layer_norm_input_grad({operands}, {_eps(n)}, {_sizes(n)}, {c.ptr(n.output)});"


@kernel("LayerNormScaleGrad")
def layer_norm_scale_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, x = n.inputs
    yield f"tl_layer_norm_scale_grad({c.ptr(dy)}, {c.ptr(x)}, {_eps(n)}, {_sizes(n)}, {c.ptr(n.output)});"


@kernel("BatchNormalization", scratch=_channel_bytes)
def batch_norm(c: Writer, n: Node) -> Iterable[str]:
    operands = ", ".join(c.ptr(n.input(i)) for i in range(5))
    yield f"tl_batch_norm_f32({operands}, {_eps(n)}, {_sizes(n)}, {c.ptr(n.output)}, scratch);"


@kernel("BatchNormTrain", scratch=_channel_bytes)
def batch_norm_train(c: Writer, n: Node) -> Iterable[str]:
    momentum = number(float(n.attrs["momentum"]))  # type: ignore[arg-type]
    statistics = [*n.inputs[3:5], *n.outputs[1:5]]
    pointers = ", ".join(c.ptr(v) for v in statistics)
    operands = ", ".join(c.ptr(n.input(i)) for i in range(3))
    yield f"const tl_batch_statistics s = {{{pointers}, {_eps(n)}, {momentum}}};"
    yield f"tl_batch_norm_train_f32({operands}, &s, {_sizes(n)}, {c.ptr(n.output)}, scratch);"


@kernel("BatchNormScaleGrad", scratch=_channel_bytes)
def batch_norm_scale_grad(c: Writer, n: Node) -> Iterable[str]:
    operands = ", ".join(c.ptr(n.input(i)) for i in range(4))
    yield f"tl_batch_norm_scale_grad({operands}, {_sizes(n)}, {c.ptr(n.output)}, scratch);"


@kernel("BatchNormInputGrad")
def batch_norm_input_grad(c: Writer, n: Node) -> Iterable[str]:
    operands = ", ".join(c.ptr(n.input(i)) for i in range(7))
    yield f"tl_batch_norm_input_grad({operands}, {_sizes(n)}, {c.ptr(n.output)});"
