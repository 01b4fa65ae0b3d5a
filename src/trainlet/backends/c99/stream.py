"""The call that streams a chain of convolutions row by row."""

from __future__ import annotations

from collections.abc import Iterable

from trainlet.backends.c99.writer import Writer, conv_scratch_bytes, kernel, number
from trainlet.ir import Node
from trainlet.ir.ops.stream import stage_window, stages


def _scratch(n: Node, lanes: int) -> int:
    windows = [stage_window(p) for p in stages(n.inputs, n.attrs) if p.op == "QLinearConv"]
    return max(4 * lanes * s.kh * s.kw if s.depthwise else conv_scratch_bytes(lanes) for s in windows)


def _stage(c: Writer, part: Node, chain_input: Node) -> str:
    """Initializer of one tl_stream_stage."""
    s, x, y = stage_window(part), part.inputs[0], part.output
    assert x is not None
    fields = {"shape": c.shape(s), "x_zero": c.zero(x), "y_zero": c.zero(y)}
    if part.op == "QLinearAdd":
        b = chain_input.inputs[0]
        assert b is not None
        fields |= {"kind": "TL_STREAM_ADD", "b_zero": c.zero(b)}
        fields |= {k: number(c.scale(v)) for k, v in (("x_scale", x), ("b_scale", b), ("y_scale", y))}
    else:
        w, bias, scale = part.inputs[1:4]
        assert bias is not None
        fields |= {
            "kind": "TL_STREAM_DEPTHWISE" if s.depthwise else "TL_STREAM_CONV",
            "weights": f"{{TL_W_S8, {c.ptr(w)}, NULL, TL_W_S8, NULL, 0}}",
            "bias": f"{{{c.ptr(bias)}, NULL}}",
            "scale": c.ptr(scale),
        }
    return "{" + ", ".join(f".{k} = {v}" for k, v in fields.items()) + "}"


@kernel("StreamRows", scratch=_scratch)
def stream_rows(c: Writer, n: Node) -> Iterable[str]:
    parts = stages(n.inputs, n.attrs)
    yield "const tl_stream_stage stages[] = {"
    for part in parts:
        yield f"  {_stage(c, part, n)},"
    yield "};"
    x, y, rows = (c.ptr(v) for v in (n.inputs[0], *n.outputs))
    yield f"tl_stream_s8(stages, {len(parts)}, {x}, {y}, {rows}, scratch);"
