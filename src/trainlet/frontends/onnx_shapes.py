"""Importers of what moves or cuts elements. Reshapes and transposes of the user's tensor emit nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainlet.frontends.importing import Const, Import, Unsupported, importer
from trainlet.frontends.layout import Placed, order_of, permutation, transposed
from trainlet.frontends.network import Layer
from trainlet.frontends.onnx_elementwise import common_permutation
from trainlet.ir.graph import Attr, Shape


def _seen_as(ctx: Import, layer: Layer, shape: Sequence[int]) -> None:
    """The operand under another shape of the user's."""
    x = ctx.placed(layer, 0)
    if math.prod(shape) != x.value.size:
        raise Unsupported(f"reshapes {x.shape} to {tuple(shape)}; check the batch size it was exported with")
    ctx.known[layer.output] = Placed(x.value, tuple(shape), x.order)


@importer("Reshape")
def reshape(ctx: Import, layer: Layer) -> None:
    """To a known shape, where 0 keeps a dimension and -1 is what remains."""
    x = ctx.placed(layer, 0)
    wanted = [int(d) for d in ctx.array(layer, 1, "shape").data.reshape(-1)]
    if not layer.attrs.get("allowzero", 0):
        wanted = [x.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    if -1 in wanted:
        wanted[wanted.index(-1)] = x.value.size // max(1, math.prod(d for d in wanted if d != -1))
    _seen_as(ctx, layer, wanted)


@importer("Flatten")
def flatten(ctx: Import, layer: Layer) -> None:
    """To a matrix, rows are the dimensions before `axis`."""
    shape = ctx.placed(layer, 0).shape
    axis = int(layer.attrs.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    _seen_as(ctx, layer, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@importer("Squeeze")
def squeeze(ctx: Import, layer: Layer) -> None:
    """Without the given dimensions of size 1, or all of them."""
    shape = ctx.placed(layer, 0).shape
    axes = ctx.integers(layer, 1, "axes")
    gone = {i for i, d in enumerate(shape) if d == 1} if axes is None else {a % len(shape) for a in axes}
    _seen_as(ctx, layer, [d for i, d in enumerate(shape) if i not in gone])


@importer("Unsqueeze")
def unsqueeze(ctx: Import, layer: Layer) -> None:
    """With dimensions of size 1 at these places of the result."""
    shape, axes = ctx.placed(layer, 0).shape, ctx.integers(layer, 1, "axes") or ()
    rank, rest = len(shape) + len(axes), iter(shape)
    new = {a % rank for a in axes}
    _seen_as(ctx, layer, [1 if i in new else next(rest) for i in range(rank)])


def _transposed(ctx: Import, x: Placed, perm: Sequence[int]) -> Placed:
    """x with dimension i = its dimension perm[i]: only what is known of the tensor changes."""
    order, value = transposed(x.order, x.shape, perm), x.value
    if order is None:
        value = ctx.arrange(x, range(len(x.shape)))
        order = transposed(order_of(x.shape), x.shape, perm)
    assert order is not None  # the user's own order splits at its own dimensions
    return Placed(value, tuple(x.shape[p] for p in perm), order)


@importer("Transpose")
def transpose(ctx: Import, layer: Layer) -> None:
    """Dimension i of the result is dimension perm[i]."""
    x = ctx.placed(layer, 0)
    perm = tuple(layer.attrs.get("perm") or reversed(range(len(x.shape))))
    ctx.known[layer.output] = _transposed(ctx, x, perm)


@importer("DepthToSpace", "SpaceToDepth")
def blocks(ctx: Import, layer: Layer) -> None:
    """Channels to blocks of pixels and back: a reshape, a transpose, a reshape."""
    x, b = ctx.placed(layer, 0), int(layer.attrs["blocksize"])
    n, c, h, w = x.shape
    if layer.op == "SpaceToDepth":
        split, perm, shape = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), (n, c * b * b, h // b, w // b)
    elif layer.attrs.get("mode", "DCR") == "CRD":
        split, perm, shape = (n, c // b // b, b, b, h, w), (0, 1, 4, 2, 5, 3), (n, c // b // b, h * b, w * b)
    else:
        split, perm, shape = (n, b, b, c // b // b, h, w), (0, 3, 4, 1, 5, 2), (n, c // b // b, h * b, w * b)
    moved = _transposed(ctx, Placed(x.value, split, x.order), perm)
    ctx.known[layer.output] = Placed(moved.value, shape, moved.order)


@importer("Concat")
def concat(ctx: Import, layer: Layer) -> None:
    """Operands one after another along `axis`."""
    operands = [ctx.operand(layer, i) for i in range(len(layer.inputs))]
    shape = list(operands[0].shape)
    axis = int(layer.attrs["axis"]) % len(shape)
    shape[axis] = sum(x.shape[axis] for x in operands)
    perm = common_permutation(operands, len(shape))
    values = [ctx.arrange(x, perm) for x in operands]
    value = values[0]
    if len(values) > 1:
        value = ctx.emit("Concat", values, {"axis": perm.index(axis)}, layer.output)
    ctx.define(layer.output, value, tuple(shape), perm)


@importer("Expand")
def expand(ctx: Import, layer: Layer) -> None:
    """x repeated along its dimensions of size 1 to a known shape."""
    x, wanted = ctx.placed(layer, 0), tuple(int(d) for d in ctx.array(layer, 1, "shape").data.reshape(-1))
    old = (1,) * (len(wanted) - len(x.shape)) + x.shape
    shape = np.broadcast_shapes(old, wanted)
    if shape == x.shape:
        ctx.known[layer.output] = x
        return
    perm = permutation(x.order, old) or tuple(range(len(old)))
    value = ctx.arrange(Placed(x.value, old, x.order), perm)
    attrs = {"shape": tuple(shape[p] for p in perm)}
    ctx.define(layer.output, ctx.emit("Expand", [value], attrs, layer.output), shape, perm)


@importer("Pad")
def pad(ctx: Import, layer: Layer) -> None:
    """x surrounded by a constant."""
    x, mode = ctx.placed(layer, 0), layer.attrs.get("mode", "constant")
    if mode != "constant":
        raise Unsupported(f"pads with mode={mode}; trainlet pads with constants")
    rank, pads = len(x.shape), ctx.integers(layer, 1, "pads") or ()
    axes = ctx.array(layer, 3, "axes").data.tolist() if layer.input(3) else range(rank)
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
    if min(full) < 0:
        raise Unsupported(f"has negative pads {pads}; crop with Slice instead")
    filler = ctx.array(layer, 2, "value").data.reshape(-1) if layer.input(2) else np.zeros(1)
    if not filler.any() and not any((*full[:2], *full[rank : rank + 2])) and _read_by_conv(ctx, layer):
        ctx.absorbed_pads[layer.output] = (*full[2:rank], *full[rank + 2 :])
        ctx.known[layer.output] = x
        return
    perm = permutation(x.order, x.shape) or tuple(range(rank))
    attrs: dict[str, Attr] = {
        "pads": (*(full[p] for p in perm), *(full[p + rank] for p in perm)),
        "value": float(filler[0]),
    }
    value = x.value if not any(full) else ctx.emit("Pad", [ctx.arrange(x, perm)], attrs, layer.output)
    shape = tuple(d + full[i] + full[rank + i] for i, d in enumerate(x.shape))
    ctx.define(layer.output, value, shape, perm)


def _read_by_conv(ctx: Import, layer: Layer) -> bool:
    """Whether only a convolution reads the layer's result: it can pad for itself."""
    reader = ctx.only_reader(layer.output)
    if reader is None or reader.op != "Conv" or reader.inputs[0] != layer.output:
        return False
    return str(reader.attrs.get("auto_pad", "NOTSET")) in ("NOTSET", "VALID")


def _cut(ctx: Import, x: Placed, starts: Sequence[int], sizes: Shape, output: str) -> None:
    perm = permutation(x.order, x.shape) or tuple(range(len(x.shape)))
    if min(sizes) < 1:
        raise Unsupported(f"cuts {x.shape} down to {sizes}, which is empty")
    attrs = {"starts": tuple(starts[p] for p in perm), "sizes": tuple(sizes[p] for p in perm)}
    ctx.define(output, ctx.emit("Slice", [ctx.arrange(x, perm)], attrs, output), sizes, perm)


@importer("Slice")
def slice_(ctx: Import, layer: Layer) -> None:
    """The block between known starts and ends, one step at a time."""
    x = ctx.placed(layer, 0)
    rank = len(x.shape)
    starts, ends = (ctx.integers(layer, i, name) or () for i, name in ((1, "starts"), (2, "ends")))
    axes = ctx.integers(layer, 3, "axes")
    steps = ctx.integers(layer, 4, "steps") or (1,)
    if set(steps) != {1}:
        raise Unsupported(f"slices with steps {steps}; use 1")
    begin, sizes = [0] * rank, list(x.shape)
    for axis, start, end in zip(range(rank) if axes is None else axes, starts, ends, strict=False):
        first, last, _ = slice(start, end).indices(x.shape[axis])
        begin[axis % rank], sizes[axis % rank] = first, last - first
    _cut(ctx, x, begin, tuple(sizes), layer.output)


@importer("Gather")
def gather(ctx: Import, layer: Layer) -> None:
    """x at one known index along `axis`."""
    x, index = ctx.placed(layer, 0), ctx.array(layer, 1, "index").data
    if index.size != 1:
        raise Unsupported(f"picks {index.size} places; trainlet picks one, or a block with Slice")
    axis = int(layer.attrs.get("axis", 0)) % len(x.shape)
    starts, place = [0] * len(x.shape), int(index.reshape(-1)[0])
    starts[axis] = place + (x.shape[axis] if place < 0 else 0)
    _cut(ctx, x, starts, (*x.shape[:axis], 1, *x.shape[axis + 1 :]), layer.output)
    cut = ctx.known[layer.output]
    assert isinstance(cut, Placed)
    ctx.known[layer.output] = Placed(
        cut.value, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), cut.order
    )


@importer("Split")
def split(ctx: Import, layer: Layer) -> None:
    """Consecutive parts along `axis`, of given sizes or as equal as possible."""
    x = ctx.placed(layer, 0)
    axis, parts = int(layer.attrs.get("axis", 0)) % len(x.shape), len(layer.outputs)
    even = -(-x.shape[axis] // parts)
    sizes = ctx.integers(layer, 1, "split") or (*(even,) * (parts - 1), x.shape[axis] - even * (parts - 1))
    starts = [0] * len(x.shape)
    for name, size in zip(layer.outputs, sizes, strict=True):
        if ctx.reads(name):
            _cut(ctx, x, list(starts), (*x.shape[:axis], size, *x.shape[axis + 1 :]), name)
        starts[axis] += size


@importer("Shape")
def shape(ctx: Import, layer: Layer) -> None:
    """All shapes are static: a constant."""
    full = ctx.operand(layer, 0).shape[slice(layer.attrs.get("start"), layer.attrs.get("end"))]
    ctx.known[layer.output] = Const(layer.output, np.array(full, np.int64))


@importer("Size")
def size(ctx: Import, layer: Layer) -> None:
    """The number of elements, a constant."""
    ctx.known[layer.output] = Const(layer.output, np.array(math.prod(ctx.operand(layer, 0).shape), np.int64))
