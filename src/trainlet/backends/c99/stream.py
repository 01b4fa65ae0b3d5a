"""The call that streams a chain of convolutions row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trainlet.backends.c99.pointwise import sum_sides
from trainlet.backends.c99.writer import Writer, braces, conv_scratch_bytes, kernel, number
from trainlet.ir import Node
from trainlet.ir.ops.stream import (
    MOST_READERS,
    Link,
    given_count,
    links,
    progress_bytes,
    readers,
    row_bytes,
    rows_kept,
    stage_window,
    stages,
)


def _scratch(n: Node, lanes: int) -> int:
    windows = [stage_window(p) for p in stages(n.inputs, n.attrs) if p.op == "QLinearConv"]
    needed = (4 * lanes * s.kh * s.kw if s.depthwise else conv_scratch_bytes(lanes) for s in windows)
    return max(needed, default=0)


def _windows(chain: tuple[Link, ...], nodes: list[Node], by_rows: bool) -> list[str]:
    """Initializer of each tl_stream_window, the image's first; the last stage's is unused."""
    at, found = progress_bytes(len(nodes)), []
    kept, sizes = rows_kept(chain, by_rows), row_bytes(nodes, by_rows)
    for source, (rows, size) in enumerate(zip(kept, sizes, strict=True), -1):
        of = readers(chain, source)
        ring = int(all(chain[j].span == 1 for j in of))
        known = [*map(str, of[:MOST_READERS]), *["TL_STREAM_NONE"] * (MOST_READERS - len(of))]
        if rows == 0:  # a given tensor that is whole
            ring, known = 0, ["TL_STREAM_NONE"] * MOST_READERS
        found.append(braces((at, rows, ring, braces(known))))
        at += rows * size
    none = ", ".join(["TL_STREAM_NONE"] * MOST_READERS)
    return [*found, f"{{0, 0, 0, {{{none}}}}}"]


def _sum(c: Writer, part: Node) -> str:
    """Initializer of a tl_stream_sum."""
    a, b = part.inputs
    assert a is not None and b is not None
    if part.attrs["fixed"]:
        clamp = part.attrs["lo"], part.attrs["hi"]
        return braces((1, *clamp, "0.0f", "0.0f", "0.0f", *sum_sides(c, part)))
    values = (a, b, part.output)
    zeros = (braces((c.zero(v), 0, 0)) for v in values)
    return braces((0, -128, 127, *(number(c.scale(v)) for v in values), *zeros))


def _stage(c: Writer, i: int, part: Node, sources: tuple[int, ...], window: str) -> str:
    """Initializer of one tl_stream_stage."""
    s, x, y = stage_window(part), part.inputs[0], part.output
    assert x is not None
    reads = braces((*sources, *["TL_STREAM_NONE"] * (2 - len(sources))))
    fields = {"sources": reads, "window": window, "shape": c.shape(s)}
    if part.op == "QLinearAdd":
        fields |= {"kind": "TL_STREAM_ADD", "sum": f"&sum_{i}"}
    elif part.op == "MaxPool":
        fields |= {"kind": "TL_STREAM_MAX"}
    else:
        w, bias, scale = part.inputs[1:4]
        assert bias is not None and scale is not None
        fields |= {
            "kind": "TL_STREAM_DEPTHWISE" if s.depthwise else "TL_STREAM_CONV",
            "weights": c.ptr(w),
            "bias": c.ptr(bias),
            "x_zero": str(c.zero(x)),
            "y_zero": str(c.zero(y)),
        }
        fields |= {"fixed": f"&to_{i}"} if scale.dtype == "s32" else {"scale": c.ptr(scale)}
        fields |= {"w_zero": str(part.attrs["w_zero"])} if part.attrs["w_zero"] else {}
    return "{" + ", ".join(f".{k} = {v}" for k, v in fields.items()) + "}"


def _arithmetic(c: Writer, i: int, part: Node) -> Iterator[str]:
    """Declarations that the stage points to."""
    if part.op == "QLinearAdd":
        yield f"static const tl_stream_sum sum_{i} = {_sum(c, part)};"
    elif (scale := part.input(3)) is not None and scale.dtype == "s32":
        lo, hi, once = part.attrs["lo"], part.attrs["hi"], int(bool(part.attrs["once"]))
        yield f"static const tl_fixed to_{i} = {braces((c.ptr(scale), lo, hi, once))};"


@kernel("StreamRows", scratch=_scratch)
def stream_rows(c: Writer, n: Node) -> Iterable[str]:
    parts, by_rows = stages(n.inputs, n.attrs), bool(n.attrs["by_rows"])
    chain = links(parts)
    image, *windows = _windows(chain, parts, by_rows)
    for i, part in enumerate(parts):
        yield from _arithmetic(c, i, part)
    yield "static const tl_stream_stage stages[] = {"
    for i, part in enumerate(parts):
        yield f"  {_stage(c, i, part, chain[i].sources, windows[i])},"
    yield "};"
    yield f"static const tl_stream_chain chain = {{stages, {len(parts)}, {image}}};"
    whole = n.inputs[1 if by_rows else 0 : given_count(n.attrs)]
    given = [*["NULL"] * by_rows, *map(c.ptr, whole)]
    yield f"const int8_t *const given[] = {braces(given)};"
    rows = "rows" if by_rows else "NULL"
    y, kept = (c.ptr(v) for v in n.outputs)
    yield f"tl_stream_s8(&chain, given, {rows}, {y}, {kept}, scratch);"
