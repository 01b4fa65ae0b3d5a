"""Calls of convolution kernels: forward, input gradient, weight gradient with its update."""

from __future__ import annotations

from collections.abc import Iterable

from trainlet.backends.c99.update import update_struct
from trainlet.backends.c99.writer import (
    VECTOR_SCRATCH_BYTES,
    Writer,
    conv_scratch_bytes,
    kernel,
    mask,
    number,
)
from trainlet.ir import Node, Value
from trainlet.ir.ops.convolution import forward_inplace_scratch_bytes, node_window
from trainlet.ir.ops.gradients import inplace_scratch_bytes, input_grad_window, weight_grad_window
from trainlet.ir.ops.window import Window


def _family(s: Window) -> str:
    return "depthwise" if s.depthwise else "conv"


def _scratch(s: Window, lanes: int) -> int:
    return 4 * lanes * s.kh * s.kw if s.depthwise else conv_scratch_bytes(lanes)


def _weights(
    c: Writer,
    w: Value,
    trained: Value | None,
    channels: Value | None,
    integer: bool,
    zero: object = 0,
    name: str = "w",
) -> str:
    """Declaration of a tl_weights: a frozen or whole tensor, optionally overlaid by trained channels."""

    def kind(v: Value | None) -> str:
        if v is None or v.dtype == "s8":
            return "TL_W_S8"
        return "TL_W_F32_MASTER" if integer else "TL_W_F32"

    k = channels.size if channels is not None else 0
    fields = f"{kind(w)}, {c.ptr(w)}, {c.ptr(trained)}, {kind(trained)}, {c.ptr(channels)}, {k}, {zero}"
    return f"const tl_weights {name} = {{{fields}}};"


def _bias(c: Writer, b: Value | None) -> str:
    if b is None:
        return "const tl_bias b = {NULL, NULL};"
    if b.dtype == "s32":
        return f"const tl_bias b = {{{c.ptr(b)}, NULL}};"
    return f"const tl_bias b = {{NULL, {c.ptr(b)}}};"


def _forward_scratch(n: Node, lanes: int) -> int:
    s = node_window(n)
    return forward_inplace_scratch_bytes(s, lanes) if "inplace" in n.attrs else _scratch(s, lanes)


@kernel("QLinearConv", scratch=_forward_scratch)
def qlinear_conv(c: Writer, n: Node) -> Iterable[str]:
    s, (x, w, b, scale) = node_window(n), n.inputs[:4]
    assert x is not None and w is not None
    assert scale is not None
    yield _weights(c, w, n.input(4), n.input(5), True, n.attrs["w_zero"])
    yield _bias(c, b)
    suffix, rescale = "", c.ptr(scale)
    if scale.dtype == "s32":
        lo, hi, once = n.attrs["lo"], n.attrs["hi"], int(bool(n.attrs["once"]))
        yield f"const tl_fixed to = {{{c.ptr(scale)}, {lo}, {hi}, {once}}};"
        suffix, rescale = "_fixed", "&to"
    yield (
        f"tl_{_family(s)}_s8{suffix}({c.shape(s)}, {c.ptr(x)}, {c.zero(x)}, &w, &b, {rescale}, "
        f"{c.zero(n.output)}, {c.ptr(n.output)}, {c.ptr(mask(n))}, scratch);"
    )


@kernel("Conv", "Gemm", scratch=lambda n, lanes: _scratch(node_window(n), lanes))
def conv(c: Writer, n: Node) -> Iterable[str]:
    s, (x, w) = node_window(n), n.inputs[:2]
    assert w is not None
    yield _weights(c, w, n.input(3), n.input(4), False)
    yield _bias(c, n.input(2))
    lo, hi = number(float(n.attrs["lo"])), number(float(n.attrs["hi"]))  # type: ignore[arg-type]
    yield (
        f"tl_{_family(s)}_f32({c.shape(s)}, {c.ptr(x)}, &w, &b, {lo}, {hi}, {c.ptr(n.output)}, "
        f"{c.ptr(mask(n))}, scratch);"
    )


def _input_grad_scratch(n: Node, lanes: int) -> int:
    s = input_grad_window(n)
    return inplace_scratch_bytes(s, lanes) if n.attrs.get("inplace") == 0 else _scratch(s, lanes)


def input_grad_weights(c: Writer, n: Node, name: str = "w") -> str:
    """Declaration of the tl_weights `name` of an input gradient."""
    w = n.inputs[1]
    assert w is not None
    return _weights(c, w, n.input(3), n.input(4), bool(n.attrs["integer"]), n.attrs["w_zero"], name)


@kernel("ConvInputGrad", scratch=_input_grad_scratch)
def conv_input_grad(c: Writer, n: Node) -> Iterable[str]:
    s, dy, addend = input_grad_window(n), n.inputs[0], n.input(2)
    yield input_grad_weights(c, n)
    if n.attrs.get("inplace") == 0:
        yield f"tl_depthwise_input_grad_inplace({c.shape(s)}, {c.ptr(n.output)}, &w, scratch);"
        return
    if addend is not None and not c.same(addend, n.output):
        yield f"memcpy({c.ptr(n.output)}, {c.ptr(addend)}, {n.output.bytes});"
    yield (
        f"tl_{_family(s)}_input_grad({c.shape(s)}, {c.ptr(dy)}, &w, {c.ptr(n.output)}, "
        f"{int(addend is not None)}, scratch);"
    )


def grad_x(c: Writer, x: Value, name: str = "x") -> str:
    """Declaration of the tl_grad_x `name` of a saved input."""
    fields = f"NULL, {c.ptr(x)}, 0" if x.dtype == "f32" else f"{c.ptr(x)}, NULL, {c.zero(x)}"
    return f"const tl_grad_x {name} = {{{fields}, {x.shape[-1]}}};"


def _weight_grad(c: Writer, n: Node, update: str) -> Iterable[str]:
    x, dy = n.inputs[:2]
    assert x is not None and dy is not None
    s, k = weight_grad_window(n), x.shape[-1]
    yield grad_x(c, x)
    yield update
    if n.attrs["depthwise"]:
        whole = Window(**{**vars(s), "c": dy.shape[-1], "o": dy.shape[-1], "groups": dy.shape[-1]})
        rows = c.ptr(n.input(2))
        yield f"tl_depthwise_weight_grad({c.shape(whole)}, &x, {c.ptr(dy)}, {rows}, {k}, &u, scratch);"
    else:
        yield f"tl_conv_weight_grad({c.shape(s)}, &x, {c.ptr(dy)}, &u, scratch);"


def _grad_scratch(n: Node, lanes: int) -> int:
    s = weight_grad_window(n)
    return 4 * lanes * s.kh * s.kw if n.attrs["depthwise"] else conv_scratch_bytes(lanes)


@kernel("ConvWeightGrad", scratch=_grad_scratch)
def conv_weight_grad(c: Writer, n: Node) -> Iterable[str]:
    row = n.output.size // n.output.shape[0]
    store = f"const tl_update u = {{.rule = TL_STORE, .w = {c.ptr(n.output)}, .row_len = {row}}};"
    yield from _weight_grad(c, n, store)


@kernel("ConvWeightGradUpdate", scratch=_grad_scratch)
def conv_weight_grad_update(c: Writer, n: Node) -> Iterable[str]:
    yield from _weight_grad(c, n, update_struct(c, n))


def _positions(dy: Value | None) -> str:
    assert dy is not None
    return f"{dy.size // dy.shape[-1]}, {dy.shape[-1]}"


@kernel("BiasGrad", scratch=lambda n, lanes: VECTOR_SCRATCH_BYTES)
def bias_grad(c: Writer, n: Node) -> Iterable[str]:
    dy = n.inputs[0]
    yield f"const tl_update u = {{.rule = TL_STORE, .w = {c.ptr(n.output)}, .row_len = {n.output.size}}};"
    yield f"tl_bias_grad({_positions(dy)}, {c.ptr(dy)}, &u, scratch);"


@kernel("BiasGradUpdate", scratch=lambda n, lanes: VECTOR_SCRATCH_BYTES)
def bias_grad_update(c: Writer, n: Node) -> Iterable[str]:
    dy = n.inputs[0]
    yield update_struct(c, n)
    yield f"tl_bias_grad({_positions(dy)}, {c.ptr(dy)}, &u, scratch);"


@kernel("RequantizeGrad")
def requantize_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, scale, bits = n.inputs
    operands = ", ".join(c.ptr(v) for v in (n.output, dy, bits, scale))
    yield f"tl_requantize_grad({operands}, {_positions(dy)});"


@kernel("MaskGrad")
def mask_grad(c: Writer, n: Node) -> Iterable[str]:
    dy, bits = n.inputs
    factor = number(float(n.attrs["factor"]))  # type: ignore[arg-type]
    yield f"tl_mask_grad({c.ptr(n.output)}, {c.ptr(dy)}, {c.ptr(bits)}, {factor}, {n.output.size});"


@kernel("TakeChannels")
def take_channels(c: Writer, n: Node) -> Iterable[str]:
    x, channels = n.inputs
    assert x is not None and channels is not None
    size = 1 if x.dtype == "s8" else 4
    yield (
        f"tl_take_channels({c.ptr(x)}, {size}, {x.size // x.shape[-1]}, {x.shape[-1]}, {c.ptr(channels)}, "
        f"{channels.size}, {c.ptr(n.output)});"
    )


@kernel("MatMul", scratch=lambda n, lanes: conv_scratch_bytes(lanes))
def matmul(c: Writer, n: Node) -> Iterable[str]:
    a, b = n.inputs
    assert a is not None and b is not None
    m, cols = n.output.shape[-2:]
    k = a.shape[-2] if n.attrs["trans_a"] else a.shape[-1]
    batch = n.output.size // (m * cols)
    turned = [int(bool(n.attrs[side])) for side in ("trans_a", "trans_b")]
    yield (
        f"tl_matmul_f32({batch}, {m}, {k}, {cols}, {turned[0]}, {turned[1]}, "
        f"{c.ptr(a)}, {m * k}, {c.ptr(b)}, {k * cols}, {c.ptr(n.output)}, {m * cols}, scratch);"
    )
