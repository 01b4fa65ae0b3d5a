"""ATen nodes said in ONNX's vocabulary: arithmetic, activations, and what does nothing."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from trainlet.frontends.importing import Unsupported
from trainlet.frontends.torch_aten import ATEN, Translation, argument, as_array, aten, shape_of


@aten("relu")
def relu(t: Translation, n: Any) -> None:
    """max(x, 0)."""
    t.layer("Relu", [n.args[0]])


@aten("hardtanh", "clamp")
def clamp(t: Translation, n: Any) -> None:
    """(x, lo?, hi?)."""
    limits = (-1.0, 1.0) if "hardtanh" in str(n.target) else (None, None)
    lo, hi = argument(n, 1, "min", limits[0]), argument(n, 2, "max", limits[1])
    t.layer("Clip", [n.args[0], lo, hi])


@aten("sigmoid", "tanh", "hardswish", "neg", "erf")
def activation(t: Translation, n: Any) -> None:
    """Operators that ONNX has under the same name."""
    names = {"sigmoid": "Sigmoid", "tanh": "Tanh", "hardswish": "HardSwish", "neg": "Neg", "erf": "Erf"}
    t.layer(names[str(n.target).split(".")[1]], [n.args[0]])


@aten("hardsigmoid")
def hard_sigmoid(t: Translation, n: Any) -> None:
    """clip(x / 6 + 1 / 2, 0, 1)."""
    t.layer("HardSigmoid", [n.args[0]], {"alpha": 1 / 6, "beta": 0.5})


@aten("silu")
def silu(t: Translation, n: Any) -> None:
    """x sigmoid(x)."""
    t.layer("Silu", [n.args[0]])


@aten("gelu")
def gelu(t: Translation, n: Any) -> None:
    """x times the normal distribution function, or its approximation by tanh."""
    t.layer("Gelu", [n.args[0]], {"approximate": n.kwargs.get("approximate", "none")})


@aten("native_layer_norm", "layer_norm")
def layer_norm(t: Translation, n: Any) -> None:
    """(x, shape of what is normalized, gamma?, beta?, eps)."""
    x, shape, gamma, beta = (argument(n, i, "") for i in range(4))
    attrs = {"axis": -len(shape), "epsilon": float(argument(n, 4, "eps", 1e-5))}
    t.layer("LayerNormalization", [x, gamma, beta], attrs)


@aten("add.Tensor", "add.Scalar", "sub.Tensor", "sub.Scalar", "rsub.Scalar")
def add(t: Translation, n: Any) -> None:
    """a +- alpha b; adding zeros that widen nothing is the operand itself."""
    a, b = n.args[:2]
    op = "Add" if ".add." in str(n.target) else "Sub"
    if "rsub" in str(n.target):
        a, b = b, a
    for x, zero in ((a, b), (b, a)) if op == "Add" else ():
        if is_zero(t, zero) and shape_of(x) == shape_of(n):
            t.same(n, x)
            return
    alpha = argument(n, 2, "alpha", 1)
    if alpha != 1:
        b = t.layer("Mul", [b, float(alpha)], output=t.between("scaled"))
    t.layer(op, [a, b])


def is_zero(t: Translation, operand: Any) -> bool:
    """Whether an operand is known and zero everywhere."""
    if isinstance(operand, (int, float)):
        return operand == 0
    return operand.name in t.known and not as_array(t.known[operand.name]).any()


@aten("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar")
def multiply(t: Translation, n: Any) -> None:
    """a b, or a / b for a known b."""
    if n.kwargs.get("rounding_mode"):
        raise Unsupported("rounds a quotient, which has no gradient")
    t.layer("Mul" if ".mul." in str(n.target) else "Div", list(n.args[:2]))


@aten("_softmax", "softmax.int")
def softmax(t: Translation, n: Any) -> None:
    """(x, dim)."""
    t.layer("Softmax", [n.args[0]], {"axis": n.args[1]})


@aten("clone", "alias", "detach", "lift_fresh_copy", "contiguous", "dropout", "_to_copy")
def same(t: Translation, n: Any) -> None:
    """Nothing happens: a copy, a dropout in evaluation."""
    x, target = n.args[0], str(n.target)
    if "dropout" in target and n.args[2]:
        raise Unsupported("drops at random even in evaluation; call it with training=self.training")
    if n.meta["val"].dtype != x.meta["val"].dtype:
        raise Unsupported(f"casts to {n.meta['val'].dtype}; keep activations in float32")
    t.same(n, x)


@aten("_assert_tensor_metadata", "_assert_scalar")
def nothing(t: Translation, n: Any) -> None:
    """A check at run time of what is static here."""


@aten("expand")
def expand(t: Translation, n: Any) -> None:
    """x repeated along its dimensions of size 1; arithmetic broadcasts without that."""
    if shape_of(n) == shape_of(n.args[0]) or all(_broadcasts(user, n) for user in n.users):
        t.same(n, n.args[0])
    else:
        t.layer("Expand", [n.args[0], t.constant(np.array(shape_of(n), np.int64))])


def _broadcasts(user: Any, expanded: Any) -> bool:
    """Whether `user` is arithmetic whose other operand has the result's shape already."""
    if not str(user.target).startswith(("aten.add.", "aten.sub.", "aten.mul.", "aten.div.")):
        return False
    others = [a for a in user.args if hasattr(a, "target") and a is not expanded]
    return any(shape_of(a) == shape_of(user) and "expand" not in str(a.target) for a in others)


def getitem(t: Translation, n: Any) -> None:
    """One of several results: of a normalization or a pool only the first is of use."""
    x, index = n.args
    parts = f"{x.name}.{index}"
    if parts in t.names:
        t.names[n.name] = t.names[parts]
    elif index == 0:
        t.same(n, x)
    else:
        raise Unsupported(f"reads result {index} of {x.target}, which trainlet does not compute")


ATEN[str(operator.getitem)] = getitem


@aten("split_with_sizes", "split.Tensor", "chunk")
def split(t: Translation, n: Any) -> None:
    """Consecutive parts, each its own block."""
    x, dim, start = n.args[0], int(argument(n, 2, "dim", 0)), 0
    for i, part in enumerate(n.meta["val"]):
        size = int(part.shape[dim])
        attrs = {"starts": [start], "ends": [start + size], "axes": [dim], "steps": [1]}
        t.names[f"{n.name}.{i}"] = t.layer("Slice", [x], attrs, output=f"{n.name}.{i}")
        start += size


@aten("scaled_dot_product_attention")
def attention(t: Translation, n: Any) -> None:
    """softmax(q k^T scale + mask) v, with q, k, v (N, heads, T, d)."""
    q, k, v = n.args[:3]
    mask, drop = argument(n, 3, "attn_mask"), argument(n, 4, "dropout_p", 0.0)
    causal, scale = argument(n, 5, "is_causal", False), n.kwargs.get("scale")
    if drop:
        raise Unsupported("drops attention at random even in evaluation")
    rank = len(shape_of(k))
    swapped = t.layer("Transpose", [k], {"perm": [*range(rank - 2), rank - 1, rank - 2]}, t.between("kT"))
    scores = t.layer("MatMul", [q, swapped], output=t.between("scores"))
    factor = float(shape_of(q)[-1] ** -0.5 if scale is None else scale)
    scores = t.layer("Mul", [scores, factor], output=t.between("scaled"))
    if (offset := _offset(t, mask, causal, shape_of(q)[-2], shape_of(k)[-2])) is not None:
        scores = t.layer("Add", [scores, t.constant(offset)], output=t.between("masked"))
    weights = t.layer("Softmax", [scores], {"axis": -1}, output=t.between("weights"))
    t.layer("MatMul", [weights, v])


def _offset(t: Translation, mask: Any, causal: bool, rows: int, columns: int) -> np.ndarray | None:
    """What a mask adds to the scores, None where it adds nothing; -inf becomes the least float's half."""
    low = np.float32(np.finfo(np.float32).min / 2)
    if causal:
        return np.where(np.tri(rows, columns, dtype=bool), 0, low).astype(np.float32)
    if mask is None:
        return None
    if mask.name not in t.known:
        raise Unsupported("has a mask that the network computes; make it a constant")
    given = as_array(t.known[mask.name])
    offset = np.where(given, 0, low) if given.dtype == bool else np.maximum(given, low)
    return offset.astype(np.float32) if offset.any() else None
