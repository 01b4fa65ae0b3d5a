"""Post-training quantization: a float inference graph becomes an int8 one (int8.md, Forward).

    Conv, Gemm                        ConvInteger + Requantize
    Add, Mul                          QLinearAdd, QLinearMul where the shapes allow
    functions of one value            QLinearLookup with a table of 256 entries
    Concat                            the same, its operands brought to one scale
    pools, Reshape, Pad, Slice, …     the same op on int8, in its operand's scale
    anything else                     DequantizeLinear, the float op, QuantizeLinear when int8 is read again

Conversions appear where a reader needs them, so float ops that follow one another stay float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from trainlet.errors import DataError, ModelError
from trainlet.ir.graph import Attr, Graph, GraphBuilder, Node, Quant, Value
from trainlet.ir.ops import OPS, Call
from trainlet.ir.ops.convolution import GEOMETRY
from trainlet.quantize.calibrate import Range, calibrate, layer_name
from trainlet.quantize.samples import dequantize_array, quantize_array
from trainlet.quantize.structure import Structure, constant, data_operands, find_structure
from trainlet.quantize.weights import effective_scales, quantize_bias, quantize_weight, weight_scales

# A sum of this many products of int8 values may leave int32.
MAX_PRODUCTS = (2**31 - 1) // (255 * 128)


def quantize(
    graph: Graph,
    samples: np.ndarray,
    *,
    method: Literal["minmax", "percentile"] = "minmax",
    percentile: float = 99.99,
    head: Literal["fp32", "int8"] = "fp32",
) -> Graph:
    """Int8 graph of a float inference graph, calibrated on real inputs `samples` (M, *sample shape).

    Weights: int8, symmetric, one scale per output channel (constant "<weight>/scale"). Activations:
    int8, asymmetric, one scale per tensor, whose range covers what the samples produced and zero. A
    clamp (Relu, Relu6) behind a convolution or sum that nothing else reads becomes its saturation.
    `head="fp32"` leaves the last Gemm or Conv before the output in float. Inputs are int8
    (`quantize_samples`), outputs float; values and weights keep their names.
    Raises DataError where the samples do not fit, ModelError naming the layer that cannot be quantized.
    """
    if head not in ("fp32", "int8"):
        raise DataError(f"head {head!r} is neither fp32 nor int8")
    _check_graph(graph)
    ranges = calibrate(graph, samples, method, percentile)
    return Quantizer(graph, ranges, find_structure(graph, ranges, head == "fp32")).run()


def _check_graph(graph: Graph) -> None:
    """Raises ModelError unless this is a float inference graph with one input and finite weights."""
    if len(graph.inputs) != 1 or graph.inputs[0].dtype != "f32":
        found = ", ".join(f"{v.name}: {v.dtype}" for v in graph.inputs) or "none"
        raise ModelError(f"{graph.name}: quantizing takes a network with one float input, this has {found}")
    if graph.state:
        trained = next(iter(graph.state))
        raise ModelError(f"{graph.name}: quantizing takes an inference graph, this one trains {trained}")
    for node in graph.nodes:
        for value in node.operands():
            tensor = graph.constants.get(value.name)
            if tensor is not None and not np.isfinite(tensor.data).all():
                raise ModelError(
                    f"weight {value.name} of layer {layer_name(node)} holds NaN or infinity; export it again"
                )


class Quantizer:
    """Rewrites a float graph front to back; `s8` and `f32` map its values to what stands for them."""

    def __init__(self, graph: Graph, ranges: Mapping[str, Range], structure: Structure) -> None:
        self.graph, self.ranges, self.structure = graph, ranges, structure
        self.out = GraphBuilder(graph.name)
        self.s8: dict[str, Value] = {}
        self.f32: dict[str, Value] = {}
        self.made: dict[tuple[str, bytes], Value] = {}
        self.producers = graph.producers()
        self.taken = {v.name for v in graph.values()}

    def run(self) -> Graph:
        x = self.graph.inputs[0]
        self.s8[x.name] = self.out.input(x.name, "s8", x.shape, self.quant(x))
        for node in self.graph.nodes:
            if node.output.name not in self.structure.folded and not self.to_int8(node):
                self.keep_float(node)
        return self.out.build([self.real(v) for v in self.graph.outputs])

    def to_int8(self, node: Node) -> bool:
        """Emit the int8 form of a node, False where it has none or all it reads is float anyway."""
        rule = RULES.get(node.op)
        read = [v for v in node.operands() if not self.is_constant(v)]
        if rule is None or node.output.name in self.structure.head or not read:
            return False
        if node.op not in ("Conv", "Gemm") and all(v.name not in self.s8 for v in read):
            return False
        return rule(self, node)

    def keep_float(self, node: Node) -> None:
        """The float op itself, on float forms of its operands; a clamp folded into it follows."""
        operands = [None if v is None else self.real(v) for v in node.inputs]
        y = self.out.add(node.op, operands, node.attrs, name=node.output.name, source=node.source)
        self.f32[node.output.name] = y
        if clamp := self.structure.clamps.get(node.output.name):
            self.keep_float(clamp)

    # --- values ---

    def quant(self, value: Value) -> Quant:
        """Parameters of an activation from its calibrated range; ModelError where it never varies."""
        found = self.ranges[value.name]
        node = self.producers.get(value.name)
        where = f"layer {layer_name(node)}" if node else f"input {value.name}"
        if found.constant:
            raise ModelError(
                f"{where} is {found.lo:g} everywhere on all calibration samples, so it has no range to "
                "quantize; calibrate on varied samples, or remove the layer if it is dead"
            )
        quant = self.structure.range_of(value.name, found).quant()
        if not np.isfinite(quant.scale):
            raise ModelError(f"{where} reaches {found.hi:g} on calibration samples, too large to quantize")
        return quant

    def extra(self, wanted: str) -> str:
        """A name for a value of our own that takes none of the user's names."""
        while wanted in self.taken:
            wanted += "_"
        self.taken.add(wanted)
        return wanted

    def int8_name(self, value: Value) -> str:
        """The user's name, except at the graph's outputs, where it belongs to the float form."""
        return self.extra(f"{value.name}/s8") if self.is_output(value) else value.name

    def is_output(self, value: Value) -> bool:
        return any(v.name == value.name for v in self.graph.outputs)

    def real(self, value: Value) -> Value:
        """The float form of a value of the original graph."""
        if value.name not in self.f32:
            tensor = self.graph.constants.get(value.name)
            self.f32[value.name] = (
                self.dequantized(value)
                if tensor is None
                else self.out.constant(value.name, tensor.data, value.dtype)
            )
        return self.f32[value.name]

    def dequantized(self, value: Value) -> Value:
        name = value.name if self.is_output(value) else self.extra(f"{value.name}/f32")
        x = self.s8[value.name]
        return self.out.add("DequantizeLinear", [x], name=name, source=self.source(value))

    def integer(self, value: Value) -> Value:
        """The int8 form of an activation of the original graph."""
        if value.name not in self.s8:
            self.s8[value.name] = self.out.add(
                "QuantizeLinear",
                [self.f32[value.name]],
                name=self.extra(f"{value.name}/s8"),
                source=self.source(value),
                quant=self.quant(value),
            )
        return self.s8[value.name]

    def source(self, value: Value) -> str:
        return self.producers[value.name].source if value.name in self.producers else ""

    def is_constant(self, value: Value) -> bool:
        return value.name in self.graph.constants

    def integer_constant(self, value: Value, shape: tuple[int, ...]) -> Value:
        """An int8 constant operand, spread over `shape`, in the scale of its own range."""
        data = self.graph.constants[value.name].data
        key = (value.name, repr(shape).encode())
        if key not in self.made:
            quant = Range(float(data.min()), float(data.max())).quant()
            spread = quantize_array(np.broadcast_to(data, shape), quant)
            self.made[key] = self.out.constant(value.name, spread, "s8", quant)
        return self.made[key]

    def result(self, node: Node) -> Value:
        """The value a node defines: that of the clamp folded into it, where there is one."""
        clamp = self.structure.clamps.get(node.output.name)
        return clamp.output if clamp else node.output

    def add(
        self,
        op: str,
        node: Node,
        inputs: Sequence[Value],
        attrs: Mapping[str, Attr] | None = None,
        quant: Quant | None = None,
    ) -> bool:
        """Emit the int8 form of a node's result, in `quant` or else in its calibrated range; True."""
        y = self.result(node)
        self.s8[y.name] = self.out.add(
            op, inputs, attrs, name=self.int8_name(y), source=node.source, quant=quant or self.quant(y)
        )
        return True

    # --- one rule per op: emit its int8 form and return True, or False where it must stay float ---

    def same_op(self, node: Node) -> bool:
        """Pools and moves: on int8 in the operand's scale; Pad's value becomes an integer."""
        x = self.integer(data_operands(self.graph, node)[0])
        attrs = dict(node.attrs)
        if node.op == "Pad":
            value = np.array(attrs["value"], np.float32)
            attrs["value"] = int(quantize_array(value, per_tensor(x)))
        return self.add(node.op, node, [x], attrs, per_tensor(x))

    def convolution(self, node: Node) -> bool:
        """Conv or Gemm: integer products, then bias, scale and saturation in one Requantize."""
        x, w, b = node.inputs[0], node.inputs[1], node.input(2)
        if x is None or w is None or not self.structure.saturates(node) or self.is_constant(x):
            return False
        kernel = constant(self.graph, w)
        bias = np.zeros(w.shape[0], np.float32) if b is None else constant(self.graph, b)
        if kernel is None or bias is None:
            return False
        if (products := kernel.size // len(kernel)) > MAX_PRODUCTS:
            raise ModelError(f"layer {layer_name(node)} sums {products} products, too many for int32")
        xq, y = self.integer(x), self.result(node)
        x_scale, quant = float(per_tensor(xq).scale), self.quant(y)
        scales = weight_scales(kernel, bias, x_scale)
        weight = self.weight(w, kernel, scales)
        bias_name = self.extra(bias_name_of(w.name)) if b is None else b.name
        offset = self.out.constant(bias_name, quantize_bias(bias, x_scale, scales), "s32")
        eff = effective_scales(x_scale, scales, float(quant.scale))
        rescale = self.out.constant(self.extra(f"{y.name}/eff"), eff)
        geometry = {k: v for k, v in node.attrs.items() if k in GEOMETRY}
        name = self.extra(f"{y.name}/acc")
        acc = self.out.add("ConvInteger", [xq, weight], geometry, name=name, source=node.source)
        return self.add("Requantize", node, [acc, offset, rescale], None, quant)

    def weight(self, w: Value, kernel: np.ndarray, scales: np.ndarray) -> Value:
        """The int8 constant of a weight; layers that share one share it as long as their scales agree."""
        key = (w.name, scales.tobytes())
        if key not in self.made:
            held = self.out.constant(self.extra(f"{w.name}/scale"), scales)
            quant = Quant(held.name, 0, axis=0)
            self.made[key] = self.out.constant(w.name, quantize_weight(kernel, scales), "s8", quant)
        return self.made[key]

    def addition(self, node: Node) -> bool:
        """Sum of two activations of one shape, or of one and a constant, which is spread to that shape."""
        if self.one_variable(node):
            return self.lookup(node)
        a, b = data_operands(self.graph, node)
        shape = node.output.shape
        fits = a.shape == shape and (b.shape == shape or self.is_constant(b))
        if not fits or not self.structure.saturates(node):
            return False
        return self.add("QLinearAdd", node, [self.integer(a), self.operand(b, shape)])

    def multiplication(self, node: Node) -> bool:
        """Product of two activations of one shape, or of one and a gate (N, 1.., C), constant or not."""
        if self.one_variable(node):
            return self.lookup(node)
        a, b = data_operands(self.graph, node)
        shape = node.output.shape
        gate = (shape[0], *(1,) * (len(shape) - 2), shape[-1])
        if a.shape != shape:
            a, b = b, a
        if a.shape != shape or self.is_constant(a) or not self.structure.saturates(node):
            return False
        if not self.is_constant(b) and b.shape not in (shape, gate):
            return False
        spread = gate if _fits(b, gate) else shape
        return self.add("QLinearMul", node, [self.integer(a), self.operand(b, spread)])

    def operand(self, value: Value, shape: tuple[int, ...]) -> Value:
        return self.integer_constant(value, shape) if self.is_constant(value) else self.integer(value)

    def one_variable(self, node: Node) -> bool:
        """Whether the result is a function of one activation: the other operand is a single number."""
        a, b = data_operands(self.graph, node)
        return b.size == 1 and self.is_constant(b) and a.shape == node.output.shape

    def difference(self, node: Node) -> bool:
        return self.one_variable(node) and self.lookup(node)

    def lookup(self, node: Node) -> bool:
        """A function of one int8 value: all 256 results, computed here."""
        x = data_operands(self.graph, node)[0]
        xq, y = self.integer(x), self.result(node)
        every = dequantize_array(np.arange(-128, 128), per_tensor(xq)).astype(np.float64)
        args = [every if v == x else self.graph.constants[v.name].data.reshape(-1) for v in node.operands()]
        found = OPS[node.op].run(Call(node, args, np.float64, self.graph.scales))
        results = found[0] if isinstance(found, tuple) else found
        table = self.out.constant(self.extra(f"{y.name}/table"), quantize_array(results, self.quant(y)))
        return self.add("QLinearLookup", node, [xq, table])

    def concatenation(self, node: Node) -> bool:
        """Operands in the result's scale: as they come where they have it, else through a table."""
        integers = {v.name: self.integer(v) for v in node.operands() if not self.is_constant(v)}
        found = {q.quant for q in integers.values()}
        agreed = len(found) == 1 and not any(self.is_constant(v) for v in node.operands())
        quant = per_tensor(next(iter(integers.values()))) if agreed else self.quant(node.output)
        parts = [
            self.rescaled(integers[v.name], quant, node) if v.name in integers else self.in_scale(v, quant)
            for v in node.operands()
        ]
        return self.add("Concat", node, parts, node.attrs, quant)

    def rescaled(self, xq: Value, quant: Quant, node: Node) -> Value:
        """An int8 value in other parameters."""
        if xq.quant == quant:
            return xq
        name = self.extra(f"{xq.name}/rescaled")
        every = dequantize_array(np.arange(-128, 128), per_tensor(xq))
        table = self.out.constant(self.extra(f"{name}/table"), quantize_array(every, quant))
        return self.out.add("QLinearLookup", [xq, table], name=name, source=node.source, quant=quant)

    def in_scale(self, value: Value, quant: Quant) -> Value:
        data = quantize_array(self.graph.constants[value.name].data, quant)
        return self.out.constant(value.name, data, "s8", quant)


def per_tensor(value: Value) -> Quant:
    """The parameters of an int8 activation."""
    if value.quant is None:
        raise ModelError(f"value {value.name} is not quantized")
    return value.quant


def bias_name_of(weight: str) -> str:
    """Name for the bias of a layer that has none: "conv/weight" -> "conv/bias"."""
    return f"{weight.removesuffix('weight')}bias" if weight.endswith("weight") else f"{weight}/bias"


def _fits(value: Value, into: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(value.shape, into) == into
    except ValueError:
        return False


RULES: dict[str, Callable[[Quantizer, Node], bool]] = {
    "Conv": Quantizer.convolution,
    "Gemm": Quantizer.convolution,
    "Add": Quantizer.addition,
    "Mul": Quantizer.multiplication,
    "Sub": Quantizer.difference,
    "Concat": Quantizer.concatenation,
    **dict.fromkeys(("AveragePool", "MaxPool", "Reshape", "Transpose", "Pad", "Slice"), Quantizer.same_op),
    **dict.fromkeys(("Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Clip", "Scale"), Quantizer.lookup),
}
