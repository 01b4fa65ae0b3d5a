"""Calls that change trained tensors."""

from __future__ import annotations

from collections.abc import Iterable

from trainlet.backends.c99.writer import VECTOR_SCRATCH_BYTES, Writer, kernel, number
from trainlet.ir import Node
from trainlet.ir.ops.optimizers import update_operand

STORED = {"f32": "TL_T_F32", "s8": "TL_T_S8", "s32": "TL_T_S32"}


def update_struct(c: Writer, n: Node, name: str = "u") -> str:
    """Declaration of the tl_update `name` of an update node, fused or not."""
    of = {role: update_operand(n, role) for role in ("w", "lr", "scale", "fraction", "m", "v", "rng")}
    w, a = of["w"], n.attrs
    assert w is not None
    fields = {
        "rule": f"TL_{str(a['rule']).upper()}",
        "master": f"TL_{str(a['master']).upper()}",
        "stored": STORED[w.dtype],
        "w": c.ptr(w),
        "row_len": w.size if len(w.shape) == 1 else w.size // w.shape[0],
    }
    for role, field in (("fraction", "fraction"), ("m", "m"), ("v", "v"), ("scale", "row_scale")):
        if of[role] is not None:
            fields[field] = c.ptr(of[role])
    if of["lr"] is not None:
        fields["lr"] = "lr"
    if a["weight_decay"]:
        fields["weight_decay"] = number(float(a["weight_decay"]))  # type: ignore[arg-type]
    if a["rule"] == "momentum":
        fields["momentum"] = number(float(a["momentum"]))  # type: ignore[arg-type]
    if of["rng"] is not None:
        rng = c.ptr(of["rng"])
        fields |= {"seed": f"{rng}[0]", "step": f"{rng}[1]", "stream": f"{a['stream']}u"}
        if a["rule"] == "adamw":
            fields |= {k: number(float(a[k])) for k in ("beta1", "beta2", "eps")}  # type: ignore[arg-type]
            for bias, beta in (("bias1", "beta1"), ("bias2", "beta2")):
                fields[bias] = f"1.0f - tl_power({fields[beta]}, {rng}[1] + 1u)"
    text = ", ".join(f".{k} = {v}" for k, v in fields.items())
    return f"const tl_update {name} = {{{text}}};"


@kernel("Update", scratch=lambda n, lanes: VECTOR_SCRATCH_BYTES)
def update(c: Writer, n: Node) -> Iterable[str]:
    w, factor = update_operand(n, "w"), update_operand(n, "factor")
    assert w is not None
    yield update_struct(c, n)
    scale = "factor" if factor is not None else "1.0f"
    if len(w.shape) == 1:
        yield f"tl_apply_vec(&u, {c.ptr(n.inputs[0])}, {w.size}, {scale}, scratch);"
    else:
        yield f"tl_apply(&u, {c.ptr(n.inputs[0])}, {w.shape[0]}, {scale}, scratch);"


@kernel("NextStep")
def next_step(c: Writer, n: Node) -> Iterable[str]:
    yield f"{c.ptr(n.output)}[1]++;"


@kernel("Fill")
def fill(c: Writer, n: Node) -> Iterable[str]:
    y = c.ptr(n.output)
    if n.attrs["value"] == 0:
        yield f"memset({y}, 0, {n.output.bytes});"
    else:
        value = number(float(n.attrs["value"]))  # type: ignore[arg-type]
        yield f"for (int32_t i = 0; i < {n.output.size}; i++) {y}[i] = {value};"
