"""What importers of TFLite operators share: the graph being built, and the table of importers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from trainlet.frontends.tflite_model import TfModel, TfOperator, TfTensor
from trainlet.ir.fixed_point import multiplier_and_shift, multiply
from trainlet.ir.graph import Attr, GraphBuilder, Quant, Shape, Value

QUANTIZED = ("INT8", "UINT8")


class Unsupported(Exception):
    """An operator that cannot be imported; the message is what comes after its name."""


Importer = Callable[["Import", TfOperator], None]
IMPORTERS: dict[str, Importer] = {}


def importer(*ops: str) -> Callable[[Importer], Importer]:
    """Register the decorated function as the importer of `ops`."""

    def register(rule: Importer) -> Importer:
        IMPORTERS.update(dict.fromkeys(ops, rule))
        return rule

    return register


def shift_of(tensor: TfTensor) -> int:
    """What is subtracted from a tensor's integers to make them int8: unsigned ones move by 128."""
    return 128 if tensor.dtype == "UINT8" else 0


def quant_of(tensor: TfTensor) -> Quant:
    """Per-tensor quantization as int8. Raises Unsupported where there is none."""
    if not tensor.quantized or len(tensor.scales) != 1:
        raise Unsupported(f"has the {tensor.dtype} tensor {tensor.name}, not int8 or uint8 with one scale")
    zero = int(tensor.zeros[0]) - shift_of(tensor)
    if not -128 <= zero <= 127 or not 0 < tensor.scales[0] < np.inf:
        raise Unsupported(f"has a scale or zero point out of range in tensor {tensor.name}")
    return Quant(float(tensor.scales[0]), zero)


def int8_data(tensor: TfTensor) -> np.ndarray:
    """Integers of a constant as int8. Raises Unsupported where it is not constant, or not of 8 bits."""
    if tensor.data is None or tensor.dtype not in QUANTIZED:
        raise Unsupported(
            f"needs the constant int8 tensor {tensor.name}, which is {tensor.dtype} or computed"
        )
    return (tensor.data.astype(np.int16) - shift_of(tensor)).astype(np.int8)


class Import:
    """A model on its way into a graph. `values`: tensor index -> value; `padding`: pads that an operator
    before a tensor left to the convolutions that read it (top, bottom, left, right)."""

    def __init__(self, model: TfModel, name: str) -> None:
        self.model, self.builder = model, GraphBuilder(name)
        self.values: dict[int, Value] = {}
        self.constants: dict[tuple[int, str], Value] = {}
        self.padding: dict[int, tuple[int, int, int, int]] = {}

    def value(self, tensor: TfTensor | None) -> Value:
        """The value of an activation; constants become int8. Raises Unsupported where there is none."""
        if tensor is None:
            raise Unsupported("lacks an operand")
        if tensor.index not in self.values:
            data, quant = int8_data(tensor), quant_of(tensor)
            return self.constant(tensor, data, "s8", quant)
        return self.values[tensor.index]

    def constant(
        self, tensor: TfTensor, data: np.ndarray, dtype: str, quant: Quant | None = None, suffix: str = ""
    ) -> Value:
        """A constant under the user's name and a suffix; operators that share a tensor share it."""
        key = (tensor.index, f"{suffix}{data.shape}")
        if key not in self.constants:
            self.constants[key] = self.builder.constant(f"{tensor.label}{suffix}", data, dtype, quant)
        return self.constants[key]

    def add(
        self,
        op: str,
        inputs: Sequence[Value],
        o: TfOperator,
        attrs: dict[str, Attr] | None = None,
        *,
        name: str | None = None,
        quant: Quant | None = None,
    ) -> Value:
        """Append a node on behalf of operator `o`, by default under the name of its output."""
        return self.builder.add(op, inputs, attrs, name=name or o.output.label, source=o.source, quant=quant)

    def define(self, o: TfOperator, value: Value) -> None:
        """`value` is the output of `o`. Raises Unsupported where its shape is another than the file says."""
        if value.shape != o.output.shape:
            raise Unsupported(f"gives {value.shape}, the file says {o.output.shape}")
        self.values[o.output.index] = value

    def lookup(
        self, o: TfOperator, x: Value, table: np.ndarray, quant: Quant, name: str | None = None
    ) -> Value:
        """table[x + 128] of an int8 value; the value itself where the table changes nothing."""
        if np.array_equal(table, np.arange(-128, 128)) and quant == x.quant and name is None:
            return x
        held = self.builder.constant(f"{o.output.label}/table", table.astype(np.int8))
        return self.add("QLinearLookup", [x, held], o, name=name, quant=quant)

    def reshaped(self, o: TfOperator, x: Value, shape: Shape, name: str | None = None) -> Value:
        """x under another shape, if it has another."""
        if x.shape == shape:
            return x
        return self.add("Reshape", [x], o, {"shape": shape}, name=name, quant=x.quant)


def per_tensor(value: Value) -> Quant:
    """Quantization of an int8 activation. Raises Unsupported for a float one."""
    if value.dtype != "s8" or value.quant is None:
        raise Unsupported("reads float activations: trainlet takes fully quantized TFLite models")
    return value.quant


def all_integers() -> np.ndarray:
    """The 256 values of an int8 activation, int64."""
    return np.arange(-128, 128)


def rescaled(x: np.ndarray, factor: float, zero: int) -> np.ndarray:
    """x times factor in fixed point, plus zero, as int8."""
    return np.clip(multiply(x, *multiplier_and_shift(factor)) + zero, -128, 127)


ACTIVATIONS: dict[int, tuple[float, float]] = {
    0: (-np.inf, np.inf),
    1: (0, np.inf),  # RELU
    2: (-1, 1),  # RELU_N1_TO_1
    3: (0, 6),  # RELU6
}


def clamp_of(o: TfOperator, quant: Quant) -> dict[str, int]:
    """lo and hi of the activation fused into `o`, as integers of its output."""
    kind = int(o.options.get("FusedActivationFunction", 0))
    if kind not in ACTIVATIONS:
        raise Unsupported(
            f"has a fused activation (number {kind} of the schema) that TFLite does not run in int8"
        )
    return clamp(ACTIVATIONS[kind], quant)


def clamp(bounds: tuple[float, float], quant: Quant) -> dict[str, int]:
    """Real bounds as integers lo and hi, rounded half away from zero as TFLite does."""
    scale = np.float32(quant.scale)
    lo, hi = (float(np.float32(b) / scale) for b in bounds)
    whole = [int(np.trunc(b + np.copysign(0.5, b))) if np.isfinite(b) else None for b in (lo, hi)]
    low = -128 if whole[0] is None else max(-128, whole[0] + quant.zero_point)
    high = 127 if whole[1] is None else min(127, whole[1] + quant.zero_point)
    return {"lo": low, "hi": high}
