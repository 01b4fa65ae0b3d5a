"""ATen nodes said in ONNX's vocabulary: convolutions, products, pools, moves; one function an operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from trainlet.frontends.importing import Unsupported
from trainlet.frontends.network import Layer
from trainlet.frontends.torch_export import Exported, module_path, python_line

Translator = Callable[["Translation", Any], None]
ATEN: dict[str, Translator] = {}


def aten(*names: str) -> Callable[[Translator], Translator]:
    """Register the decorated function as what reads these ATen operators ("relu" is aten.relu.default)."""

    def register(function: Translator) -> Translator:
        ATEN.update({f"aten.{n}" if "." in n else f"aten.{n}.default": function for n in names})
        return function

    return register


class Translation:
    """Layers of a network, one ATen node after another.

    `known` holds tensors that follow from the module alone, under their nodes' names; `names` what a node's
    result is called in the network.
    """

    def __init__(self, exported: Exported, norm: str) -> None:
        self.exported, self.norm = exported, norm
        self.layers: list[Layer] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.known: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.node: Any = None
        for placeholder, (name, tensor) in exported.tensors.items():
            self.known[placeholder], self.names[placeholder] = tensor, name
        for name in exported.inputs:
            self.names[name] = name

    def run(self) -> None:
        """Translate every node; what cannot be said becomes a layer that carries the reason."""
        for node in self.exported.nodes:
            if node.op != "call_function":
                continue
            self.node, target = node, str(node.target)
            self.names.setdefault(node.name, node.name)
            if self.is_known(node):
                self.evaluate(node)
                continue
            try:
                if target not in ATEN:
                    raise Unsupported(f"is not an operator trainlet has{ADVICE.get(target, '')}")
                ATEN[target](self, node)
            except Unsupported as reason:
                op = target if "." in target else f"torch.{target}"  # torch.cond has no overloads
                known = [n for n in node.all_input_nodes if n.name in self.names]
                self.layer(op, known, {"reason": f"{op} {reason}"})

    def is_known(self, node: Any) -> bool:
        """Whether a node's result follows from the module alone; no operator here is random in evaluation."""
        return all(n.name in self.known for n in node.all_input_nodes)

    def evaluate(self, node: Any) -> None:
        """Compute a node now, with PyTorch."""
        import torch
        from torch.fx.node import map_arg

        args = map_arg(node.args, lambda n: self.known[n.name])
        kwargs = map_arg(node.kwargs, lambda n: self.known[n.name])
        with torch.no_grad():
            self.known[node.name] = node.target(*args, **kwargs)

    def name(self, operand: Any) -> str:
        """The network's name of an operand: a node, a number, or None."""
        if operand is None:
            return ""
        if isinstance(operand, (int, float)):
            return self.constant(np.array(operand, np.float32))
        name = self.names[operand.name]
        if operand.name in self.known and name not in self.initializers:
            self.initializers[name] = as_array(self.known[operand.name])
        return name

    def constant(self, data: np.ndarray) -> str:
        """A constant that has no name of the user's."""
        name = f"{self.node.name}.constant{len(self.initializers)}"
        self.initializers[name] = data
        return name

    def layer(
        self,
        op: str,
        inputs: Sequence[Any],
        attrs: Mapping[str, Any] | None = None,
        output: str | None = None,
    ) -> str:
        """Append a layer for the node at hand; operands are nodes, numbers, None or names."""
        names = tuple(i if isinstance(i, str) else self.name(i) for i in inputs)
        path = module_path(self.node)
        source = f"{self.exported.name}:{path or self.node.name}"
        line = python_line(self.node.meta.get("stack_trace"))
        output = output or self.node.name
        self.layers.append(Layer(op, names, (output,), dict(attrs or {}), source, None, line))
        return output

    def same(self, node: Any, operand: Any) -> None:
        """The node's result is its operand."""
        self.names[node.name] = self.name(operand)

    def between(self, suffix: str) -> str:
        """A name for a result inside the node at hand."""
        return f"{self.node.name}.{suffix}"


def as_array(tensor: Any) -> np.ndarray:
    """A tensor as numpy: floats as float32, contiguous."""
    array = tensor.detach().cpu().contiguous()
    array = array.float().numpy() if array.is_floating_point() else array.numpy()
    return np.array(array)


def shape_of(node: Any) -> tuple[int, ...]:
    """The static shape of a node's result."""
    return tuple(int(d) for d in node.meta["val"].shape)


def argument(node: Any, index: int, name: str, default: Any = None) -> Any:
    """An argument by its place or its name."""
    return node.args[index] if index < len(node.args) else node.kwargs.get(name, default)


ADVICE = {
    "cond": "; use torch.where",
    "aten.index.Tensor": "; the size of what it picks depends on data, use torch.where or a slice",
    "aten.nonzero.default": "; its size depends on data, use torch.where",
    "aten._log_softmax.default": "; leave it out, the loss contains it",
    "aten._native_batch_norm_legit.no_stats": "; it uses batch statistics even in evaluation: give the layer "
    "running ones (track_running_stats=True)",
    "aten.native_group_norm.default": "; use BatchNorm",
    "aten.native_dropout.default": "; call model.eval(), or use nn.Dropout",
}


@aten("convolution")
def convolution(t: Translation, n: Any) -> None:
    """(x, w, b, stride, padding, dilation, transposed, output_padding, groups)."""
    x, w, b, stride, padding, dilation, transposed, _, groups = n.args
    if transposed:
        raise Unsupported("is a transposed convolution, which trainlet does not have")
    rank = len(shape_of(w)) - 2
    pads, stride, dilation = (list(v) * (rank if len(v) == 1 else 1) for v in (padding, stride, dilation))
    attrs = {"strides": stride, "pads": pads * 2, "dilations": dilation, "group": groups}
    t.layer("Conv", [x, w, b], attrs)


@aten("_native_batch_norm_legit_no_training")
def batch_norm(t: Translation, n: Any) -> None:
    """(x, gamma?, beta?, mean, variance, momentum, eps) -> y and two results nobody reads."""
    x, gamma, beta, mean, variance, momentum, eps = n.args
    attrs = {"epsilon": float(eps)}
    if t.norm == "batch":
        if not momentum:
            raise Unsupported("averages its statistics over all batches (momentum=None); give it a momentum")
        attrs |= {"batch": True, "momentum": float(momentum)}
        t.layer("BatchNormalization", [x, gamma, beta, mean, variance], attrs)
        return
    names = [t.name(x), t.name(gamma), t.name(beta)]
    for i, (suffix, fill) in enumerate((("weight", 1.0), ("bias", 0.0)), start=1):
        if not names[i]:  # affine=False
            names[i] = f"{t.names[mean.name].rpartition('.')[0]}.{suffix}"
            t.initializers[names[i]] = np.full(shape_of(mean), fill, np.float32)
    t.layer("BatchNormalization", [*names, mean, variance], attrs)


@aten("addmm")
def addmm(t: Translation, n: Any) -> None:
    """b + x w."""
    b, x, w = n.args
    if n.kwargs.get("beta", 1) != 1 or n.kwargs.get("alpha", 1) != 1 or len(shape_of(b)) != 1:
        raise Unsupported("scales or adds a matrix; write it as x @ w + b")
    product(t, x, w, b)


@aten("mm", "bmm", "matmul")
def matmul(t: Translation, n: Any) -> None:
    """x w, where either may be computed."""
    product(t, n.args[0], n.args[1], None)


@aten("linear")
def linear(t: Translation, n: Any) -> None:
    """x w^T + b."""
    x, w, b = argument(n, 0, "input"), argument(n, 1, "weight"), argument(n, 2, "bias")
    if w.name not in t.known:
        raise Unsupported("has a weight that the network computes; make it a parameter")
    t.layer("Linear", [x, w, b])


def product(t: Translation, x: Any, w: Any, b: Any) -> None:
    """x w [+ b]; a known w that is the transpose of a parameter is read where the parameter lies."""
    if w.name not in t.known or x.name in t.known or len(shape_of(w)) != 2:
        out = t.layer("MatMul", [x, w], output=t.between("product") if b is not None else None)
        if b is not None:
            t.layer("Add", [out, b])
        return
    given = transposed_of(w)
    if given is not None and given.name in t.known:
        t.layer("Linear", [x, given, b])
        return
    transposed = f"{t.name(w)}.T"
    t.initializers[transposed] = np.ascontiguousarray(as_array(t.known[w.name]).T)
    t.layer("Linear", [x, transposed, b])


def transposed_of(node: Any) -> Any:
    """The matrix whose transpose a node is, None where it is no transpose."""
    moves = {"aten.permute.default": ([1, 0],), "aten.t.default": (), "aten.transpose.int": (0, 1)}
    found = moves.get(str(node.target))
    same = found is not None and [*node.args[1:]] == [*found]
    return node.args[0] if same else None


@aten("max_pool2d_with_indices")
def max_pool(t: Translation, n: Any) -> None:
    """(x, kernel, stride, padding, dilation, ceil_mode) -> y and indices."""
    pool(
        t,
        n,
        "MaxPool",
        {"ceil_mode": int(argument(n, 5, "ceil_mode", False))},
        argument(n, 4, "dilation", [1]),
    )


@aten("avg_pool2d", "avg_pool1d")
def avg_pool(t: Translation, n: Any) -> None:
    """(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)."""
    if argument(n, 6, "divisor_override") is not None:
        raise Unsupported("overrides its divisor, which trainlet does not")
    ceil, count = argument(n, 4, "ceil_mode", False), argument(n, 5, "count_include_pad", True)
    pool(t, n, "AveragePool", {"ceil_mode": int(ceil), "count_include_pad": int(count)}, [1])


def pool(t: Translation, n: Any, op: str, extra: Mapping[str, Any], dilation: Sequence[int]) -> None:
    """A pool over the trailing dimensions."""
    rank = len(shape_of(n.args[0])) - 2
    kernel = spread(n.args[1], rank)
    stride = spread(argument(n, 2, "stride") or kernel, rank)
    pads = spread(argument(n, 3, "padding", 0), rank)
    attrs = {"kernel_shape": kernel, "strides": stride, "pads": pads * 2, "dilations": spread(dilation, rank)}
    t.layer(op, [n.args[0]], {**attrs, **extra})


def spread(value: Any, rank: int) -> list[int]:
    """One number a dimension."""
    values = [value] if isinstance(value, int) else [int(v) for v in value]
    return values * rank if len(values) == 1 else values


@aten("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def adaptive_avg_pool(t: Translation, n: Any) -> None:
    """To a given output size, which has to divide the input's."""
    size, wanted = shape_of(n.args[0])[2:], [int(v) for v in n.args[1]]
    if wanted == [1, 1]:
        t.layer("GlobalAveragePool", [n.args[0]])
        return
    if any(a % b for a, b in zip(size, wanted, strict=True)):
        raise Unsupported(f"pools {size} to {tuple(wanted)}; give sizes that divide, or AvgPool2d")
    kernel = [a // b for a, b in zip(size, wanted, strict=True)]
    t.layer("AveragePool", [n.args[0]], {"kernel_shape": kernel, "strides": kernel})


@aten("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze.dim", "squeeze.dims", "flatten.using_ints")
def reshape(t: Translation, n: Any) -> None:
    """The same elements under another shape."""
    shape = t.constant(np.array(shape_of(n), np.int64))
    t.layer("Reshape", [n.args[0], shape], {"allowzero": 1})


@aten("permute", "transpose.int", "t")
def permute(t: Translation, n: Any) -> None:
    """Dimensions in another order."""
    rank = len(shape_of(n))
    perm = list(range(rank))
    if str(n.target) == "aten.permute.default":
        perm = [d % rank for d in n.args[1]]
    else:
        a, b = (d % rank for d in (n.args[1:] or (0, 1)))
        perm[a], perm[b] = perm[b], perm[a]
    t.layer("Transpose", [n.args[0]], {"perm": perm})


@aten("cat")
def cat(t: Translation, n: Any) -> None:
    """Operands one after another."""
    t.layer("Concat", n.args[0], {"axis": argument(n, 1, "dim", 0)})


@aten("slice.Tensor")
def slice_(t: Translation, n: Any) -> None:
    """(x, dim, start, end, step)."""
    dim, start, end = argument(n, 1, "dim", 0), argument(n, 2, "start"), argument(n, 3, "end")
    attrs = {"starts": [start or 0], "ends": [end if end is not None else 2**31], "axes": [dim]}
    if shape_of(n) == shape_of(n.args[0]):
        t.same(n, n.args[0])
        return
    t.layer("Slice", [n.args[0]], {**attrs, "steps": [argument(n, 4, "step", 1)]})


@aten("select.int")
def select(t: Translation, n: Any) -> None:
    """(x, dim, index)."""
    index = t.constant(np.array(n.args[2], np.int64))
    t.layer("Gather", [n.args[0], index], {"axis": n.args[1]})


@aten("constant_pad_nd")
def constant_pad(t: Translation, n: Any) -> None:
    """(x, pads: last dimension first, value)."""
    rank, pads = len(shape_of(n)), list(n.args[1])
    if not any(pads):
        t.same(n, n.args[0])
        return
    begins, ends = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        begins[rank - 1 - i], ends[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    value = t.constant(np.array(argument(n, 2, "value", 0.0), np.float32))
    t.layer("Pad", [n.args[0], "", value], {"pads": begins + ends})


@aten("mean.dim", "mean", "sum.dim_IntList")
def reduce(t: Translation, n: Any) -> None:
    """(x, dims, keepdim)."""
    dims = argument(n, 1, "dim")
    attrs: dict[str, Any] = {"keepdims": int(argument(n, 2, "keepdim", False))}
    if dims:
        attrs["axes"] = [int(d) for d in dims]
    t.layer("ReduceSum" if "sum" in str(n.target) else "ReduceMean", [n.args[0]], attrs)


__all__ = ["ATEN", "Translation", "argument", "aten", "math", "shape_of"]
