"""JAX primitives said in ONNX's vocabulary, one short function each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.frontends.importing import Unsupported
from trainlet.frontends.network import Layer

Translator = Callable[["Translation", Any], None]
PRIMITIVES: dict[str, Translator] = {}
CALLS = ("pjit", "jit", "custom_jvp_call", "custom_vjp_call", "closed_call", "checkpoint", "remat2")


def primitive(*names: str) -> Callable[[Translator], Translator]:
    """Register the decorated function as what reads these primitives."""

    def register(function: Translator) -> Translator:
        PRIMITIVES.update(dict.fromkeys(names, function))
        return function

    return register


class Translation:
    """Layers of a network, one equation after another.

    `known` holds tensors that follow from the parameters alone. A broadcast of one keeps its sizes of 1, as
    all arithmetic here broadcasts; `turned` says how a weight was transposed to ONNX's (O, I, *K).
    """

    def __init__(self, function: str) -> None:
        self.function = function
        self.layers: dict[str, Layer] = {}  # by output
        self.initializers: dict[str, np.ndarray] = {}
        self.turned: dict[str, tuple[int, ...]] = {}
        self.known: dict[Any, np.ndarray] = {}
        self.names: dict[Any, str] = {}
        self.uses: Counter[Any] = Counter()
        self.products: dict[str, str] = {}  # a result -> the convolution or product behind it, without a bias
        self.equation: Any = None
        self.calls: list[Any] = []  # the calls around it

    def define(self, var: Any, name: str) -> None:
        self.names[var] = name

    def define_known(self, var: Any, name: str, data: Any) -> None:
        self.names[var], self.known[var] = name, np.asarray(data)

    def run(self, jaxpr: Any, consts: Sequence[Any]) -> None:
        """Translate a jaxpr; calls are inlined, what cannot be said becomes a layer with the reason."""
        for var, const in zip(jaxpr.constvars, consts, strict=True):
            self.define_known(var, f"constant{len(self.names)}", const)
        for equation in jaxpr.eqns:
            self.uses.update(v for v in equation.invars if not _literal(v))
        self.uses.update(v for v in jaxpr.outvars if not _literal(v))
        for equation in jaxpr.eqns:
            self.equation = equation
            self.step(equation)

    def step(self, e: Any) -> None:
        name = e.primitive.name
        if name in CALLS:
            return self.call(e)
        if all(self.is_known(v) for v in e.invars):
            return self.evaluate(e)
        try:
            if name not in PRIMITIVES:
                raise Unsupported(f"{name} is not a primitive trainlet has")
            PRIMITIVES[name](self, e)
        except Unsupported as reason:
            text = str(reason).removeprefix(f"{name} ")
            self.layer(f"jax.{name}", list(e.invars), {"reason": f"jax.{name} {text}"})
        return None

    def call(self, e: Any) -> None:
        """Inline a call: its inner variables are the outer ones."""
        inner = next(e.params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in e.params)
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        for var, given in zip(jaxpr.invars, e.invars, strict=True):
            self.same(var, given)
        self.calls.append(e)
        self.run(jaxpr, consts)
        self.calls.pop()
        for var, made in zip(e.outvars, jaxpr.outvars, strict=True):
            self.same(var, made)

    def same(self, var: Any, other: Any) -> None:
        """`var` is `other`."""
        self.names[var] = self.names[other] if not _literal(other) else ""
        if self.is_known(other):
            self.known[var] = self.value(other)
            self.names[var] = self.names[var] or f"constant{len(self.names)}"

    def is_known(self, var: Any) -> bool:
        return _literal(var) or var in self.known

    def value(self, var: Any) -> np.ndarray:
        return np.asarray(var.val) if _literal(var) else self.known[var]

    def evaluate(self, e: Any) -> None:
        """Compute an equation now, with JAX; a broadcast only gains sizes of 1 and keeps its name."""
        if e.primitive.name in ("broadcast_in_dim", "reshape") and not _literal(e.invars[0]):
            x, out = self.value(e.invars[0]), e.outvars[0]
            if e.primitive.name == "broadcast_in_dim":
                shape = [1] * len(out.aval.shape)
                for axis, size in zip(e.params["broadcast_dimensions"], x.shape, strict=True):
                    shape[axis] = size
                return self.define_known(out, self.names[e.invars[0]], x.reshape(shape))
        full = [np.broadcast_to(self.value(v), v.aval.shape) for v in e.invars]
        result = e.primitive.bind(*full, **e.params)
        results = result if e.primitive.multiple_results else [result]
        for var, data in zip(e.outvars, results, strict=True):
            self.define_known(var, f"{e.primitive.name}{len(self.names)}", data)
        return None

    def name(self, operand: Any) -> str:
        """The network's name of an operand."""
        if isinstance(operand, str):
            return operand
        if isinstance(operand, int | float):
            return self.constant(np.array(operand, np.float32))
        if not self.is_known(operand):
            return self.names[operand]
        data = self.value(operand)
        name = self.names.get(operand) if not _literal(operand) else None
        if name is None or (name in self.initializers and self.initializers[name].shape != data.shape):
            return self.constant(data)
        self.initializers.setdefault(name, data.astype(np.float32) if data.dtype.kind == "f" else data)
        return name

    def constant(self, data: np.ndarray) -> str:
        name = f"constant.{len(self.initializers)}"
        self.initializers[name] = data.astype(np.float32) if data.dtype.kind == "f" else data
        return name

    def layer(
        self,
        op: str,
        inputs: Sequence[Any],
        attrs: Mapping[str, Any] | None = None,
        output: str | None = None,
    ) -> str:
        """Append a layer; without `output` it defines the equation's result."""
        names = tuple(self.name(i) for i in inputs)
        result = output or f"{self.equation.primitive.name}.{len(self.layers)}"
        if output is None:
            self.names[self.equation.outvars[0]] = result
        source = f"{self.function}:{self.equation.source_info.name_stack or self.equation.primitive.name}"
        line = next(filter(None, map(_line, (self.equation, *reversed(self.calls)))), "")
        self.layers[result] = Layer(op, names, (result,), dict(attrs or {}), source, None, line)
        return result

    def between(self) -> str:
        return f"between.{len(self.layers)}"

    def finished(self) -> list[Layer]:
        return list(self.layers.values())


def _literal(var: Any) -> bool:
    return hasattr(var, "val")


def _line(e: Any) -> str:
    """ "net.py:12", the innermost frame outside JAX."""
    frames = getattr(e.source_info.traceback, "frames", ()) or ()
    own = [f for f in frames if "jax" not in Path(f.file_name).parts and "_src" not in f.file_name]
    return f"{Path(own[0].file_name).name}:{own[0].line_num}" if own else ""


def shape(var: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in var.aval.shape)


@primitive("conv_general_dilated")
def convolution(t: Translation, e: Any) -> None:
    """Any layout: turned to ONNX's (N, C, *S), (O, I, *K) and back, which costs nothing."""
    (x, w), p = e.invars, e.params
    if set(p["lhs_dilation"]) != {1} or p["batch_group_count"] != 1 or not t.is_known(w):
        raise Unsupported("is transposed, grouped by batch, or has computed weights")
    lhs, rhs, out = (tuple(spec) for spec in p["dimension_numbers"])
    name = t.names[w]
    t.turned[name] = rhs
    t.initializers[name] = np.ascontiguousarray(t.value(w).transpose(rhs))
    begins, ends = zip(*p["padding"], strict=True)
    attrs = {
        "strides": list(p["window_strides"]), "pads": [*begins, *ends],
        "dilations": list(p["rhs_dilation"]), "group": p["feature_group_count"],
    }  # fmt: skip
    turned = t.layer("Transpose", [x], {"perm": list(lhs)}, t.between())
    made = t.layer("Conv", [turned, name], attrs, t.between())
    back = t.layer("Transpose", [made], {"perm": [out.index(i) for i in range(len(out))]})
    t.products[back] = made


@primitive("dot_general")
def product(t: Translation, e: Any) -> None:
    """x (..., K) w (K, O) with a known w is a layer; two computed operands are a batched matrix product."""
    a, b = e.invars
    (ca, cb), (ba, bb) = e.params["dimension_numbers"]
    rank_a, rank_b = len(shape(a)), len(shape(b))
    if t.is_known(b) and tuple(ca) == (rank_a - 1,) and rank_b == 2 and not ba:
        name, perm = t.names[b], (1 - cb[0], cb[0])
        t.turned[name] = perm
        t.initializers[name] = np.ascontiguousarray(t.value(b).transpose(perm))
        made = t.layer("Linear", [a, name])
        t.products[made] = made
        return
    plain = tuple(range(rank_a - 2))
    if t.is_known(a) or t.is_known(b) or tuple(ba) != plain or tuple(bb) != plain or rank_a != rank_b:
        raise Unsupported(f"contracts dimensions {e.params['dimension_numbers']}; write it as x @ w")
    left, right = (_last(t, v, c[0], at) for v, c, at in ((a, ca, rank_a - 1), (b, cb, rank_b - 2)))
    t.layer("MatMul", [left, right])


def _last(t: Translation, v: Any, contracted: int, wanted: int) -> Any:
    """The operand with its contracted dimension where MatMul wants it."""
    if contracted == wanted:
        return v
    perm = list(range(len(shape(v))))
    perm[-1], perm[-2] = perm[-2], perm[-1]
    return t.layer("Transpose", [v], {"perm": perm}, t.between())


@primitive("add", "sub", "mul", "div", "add_any")
def arithmetic(t: Translation, e: Any) -> None:
    """a op b; a known vector added to a product is its bias."""
    a, b = e.invars
    op = {"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}[e.primitive.name]
    if op == "Add":
        for x, other in ((a, b), (b, a)):
            if t.is_known(other) and not t.is_known(x) and _as_bias(t, e, x, other):
                return
    t.layer(op, [a, b])


def _as_bias(t: Translation, e: Any, x: Any, bias: Any) -> bool:
    made = t.products.get(t.names[x])
    data = t.value(bias)
    if made is None or t.uses[x] != 1 or data.size != shape(x)[-1] or data.shape[-1:] != shape(x)[-1:]:
        return False
    layer = t.layers[made]
    if layer.op == "Conv" and t.layers[t.names[x]].attrs["perm"][-1] != 1:
        return False
    name = t.names.get(bias) or f"bias.{len(t.initializers)}"
    t.initializers[name] = data.reshape(-1).astype(np.float32)
    t.layers[made] = replace(layer, inputs=(*layer.inputs, name))
    t.names[e.outvars[0]] = t.names[x]
    return True


@primitive("max", "min")
def bound(t: Translation, e: Any) -> None:
    """max(x, lo) and min(x, hi) with a known number: Relu is max(x, 0)."""
    x, limit = e.invars if t.is_known(e.invars[1]) else e.invars[::-1]
    if not t.is_known(limit) or t.value(limit).size != 1:
        raise Unsupported("compares two computed tensors, which trainlet does not")
    value = float(t.value(limit).reshape(-1)[0])
    t.layer("Clip", [x, value, ""] if e.primitive.name == "max" else [x, "", value])


@primitive("tanh", "logistic", "erf", "neg")
def function(t: Translation, e: Any) -> None:
    """Functions that ONNX has."""
    names = {"tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf", "neg": "Neg"}
    t.layer(names[e.primitive.name], [e.invars[0]])


@primitive("erfc")
def complement(t: Translation, e: Any) -> None:
    """1 - erf(x)."""
    t.layer("Sub", [1.0, t.layer("Erf", [e.invars[0]], output=t.between())])


@primitive("square", "integer_pow")
def square(t: Translation, e: Any) -> None:
    """x x."""
    if e.params.get("y", 2) != 2:
        raise Unsupported(f"raises to the power {e.params['y']}; trainlet squares")
    t.layer("Mul", [e.invars[0], e.invars[0]])


@primitive("reshape", "squeeze", "expand_dims")
def reshape(t: Translation, e: Any) -> None:
    """The same elements under another shape."""
    wanted = t.constant(np.array(shape(e.outvars[0]), np.int64))
    t.layer("Reshape", [e.invars[0], wanted], {"allowzero": 1})


@primitive("broadcast_in_dim")
def broadcast(t: Translation, e: Any) -> None:
    """New dimensions of size 1; arithmetic broadcasts them, anything else needs them repeated."""
    x, out = e.invars[0], e.outvars[0]
    sizes = [1] * len(shape(out))
    for axis, size in zip(e.params["broadcast_dimensions"], shape(x), strict=True):
        sizes[axis] = size
    seen = t.layer(
        "Reshape", [x, t.constant(np.array(sizes, np.int64))], {"allowzero": 1}, output=t.between()
    )
    t.layer("Expand", [seen, t.constant(np.array(shape(out), np.int64))])


@primitive("transpose")
def transpose(t: Translation, e: Any) -> None:
    """Dimensions in another order."""
    t.layer("Transpose", [e.invars[0]], {"perm": list(e.params["permutation"])})


@primitive("reduce_sum")
def reduce_sum(t: Translation, e: Any) -> None:
    """Sum over some dimensions."""
    t.layer("ReduceSum", [e.invars[0]], {"axes": list(e.params["axes"]), "keepdims": 0})


@primitive("reduce_window_max")
def max_pool(t: Translation, e: Any) -> None:
    """Windows over the dimensions in the middle of (N, *S, C)."""
    p, rank = e.params, len(shape(e.invars[0]))
    window, strides, pads = p["window_dimensions"], p["window_strides"], p["padding"]
    if window[0] != 1 or window[-1] != 1 or set(p["base_dilation"]) != {1}:
        raise Unsupported(f"pools windows {tuple(window)}; trainlet pools (N, *S, C) over S")
    begins, ends = zip(*pads[1:-1], strict=True)
    attrs = {
        "kernel_shape": list(window[1:-1]), "strides": list(strides[1:-1]),
        "pads": [*begins, *ends], "dilations": list(p["window_dilation"][1:-1]),
    }  # fmt: skip
    first = t.layer("Transpose", [e.invars[0]], {"perm": [0, rank - 1, *range(1, rank - 1)]}, t.between())
    made = t.layer("MaxPool", [first], attrs, t.between())
    t.layer("Transpose", [made], {"perm": [0, *range(2, rank), 1]})


@primitive("convert_element_type", "copy", "copy_p", "stop_gradient", "optimization_barrier")
def same(t: Translation, e: Any) -> None:
    """Nothing happens: all arithmetic is float32."""
    if e.outvars[0].aval.dtype.kind != "f":
        raise Unsupported(f"converts to {e.outvars[0].aval.dtype}; keep activations in float32")
    t.same(e.outvars[0], e.invars[0])
