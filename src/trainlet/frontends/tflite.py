"""Quantized .tflite file -> int8 inference Graph with the same integers as TFLite's reference kernels.

Activations, weights and biases keep the user's names; where TFLite joined the names of fused layers, the
first of them. uint8 tensors become int8: every integer moves down by 128.
The output is the user's tensor, dequantized ("<name>/f32").
"""

from __future__ import annotations

from pathlib import Path

from trainlet.errors import GraphError, ModelError
from trainlet.frontends import tflite_elementwise, tflite_window  # noqa: F401  (register importers)
from trainlet.frontends.tflite_import import IMPORTERS, Import, Unsupported, quant_of
from trainlet.frontends.tflite_model import TfModel, TfOperator, TfTensor, read_tflite
from trainlet.ir.graph import Graph, Value

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def load_tflite(path: str | Path) -> Graph:
    """The int8 or uint8 network in a .tflite file.

    Raises ModelError: damaged file, float model, several inputs or outputs, all unsupported layers at once.
    """
    path = Path(path)
    model = read_tflite(path)
    _check(model)
    ctx = Import(model, path.stem)
    try:
        _define_input(ctx, model.inputs[0])
        _import_operators(ctx)
        return ctx.builder.build([_output(ctx, model.outputs[0])])
    except GraphError as error:
        raise ModelError(f"{model.file}: {error}") from None


def _check(model: TfModel) -> None:
    """Raises ModelError unless this is one quantized network from one input to one output."""
    for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(t.name for t in tensors) or "none"
            raise ModelError(f"{model.file}: trainlet takes one of the {what}, this model has {names}")
    for t in (*model.inputs, *model.outputs):
        if any(d < 1 for d in t.shape) or not t.shape:
            raise ModelError(
                f"{model.file}: {t.name} has the open shape {t.shape}; convert it with fixed sizes"
            )
    float_layers = [o for o in model.operators if o.op in _WEIGHTED and _is_float(o)]
    if float_layers:
        raise ModelError(
            f"{model.file} is a float TFLite model ({float_layers[0].source} computes in float): "
            "load its ONNX export, which trainlet quantizes, or convert it to int8"
        )


def _is_float(o: TfOperator) -> bool:
    return any(t is not None and t.dtype in ("FLOAT32", "FLOAT16") for t in (*o.inputs, *o.outputs))


def _define_input(ctx: Import, t: TfTensor) -> None:
    if t.dtype == "FLOAT32":
        ctx.values[t.index] = ctx.builder.input(t.label, "f32", t.shape)
        return
    try:
        ctx.values[t.index] = ctx.builder.input(t.label, "s8", t.shape, quant_of(t))
    except Unsupported as reason:
        raise ModelError(f"{ctx.model.file}: the input {reason}") from None


def _import_operators(ctx: Import) -> None:
    """Every operator in turn. Problems are collected, so that the user sees all of them at once."""
    problems: list[str] = []
    unknown: set[int] = set()
    for o in ctx.model.operators:
        blind = any(t is not None and t.index in unknown for t in o.inputs)
        try:
            if o.op not in IMPORTERS:
                raise Unsupported("is not an operator trainlet has")
            if not blind:
                _import_operator(ctx, o)
        except Unsupported as reason:
            problems.append(f"{o.source}: {o.op} {reason}")
            blind = True
        if blind:
            unknown |= {t.index for t in o.outputs}
    if problems:
        count = f"{len(problems)} layer{'s' if len(problems) > 1 else ''}"
        raise ModelError(f"{ctx.model.file}: {count} cannot be imported: " + "; ".join(problems))


def _import_operator(ctx: Import, o: TfOperator) -> None:
    try:
        IMPORTERS[o.op](ctx, o)
    except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError) as error:
        # The file is not checked against TFLite's rules beforehand; importers rely on them.
        raise Unsupported(f"has operands or options that do not fit each other ({error})") from None


def _output(ctx: Import, t: TfTensor) -> Value:
    if t.index not in ctx.values or t.index in ctx.padding:
        raise ModelError(f"{ctx.model.file}: no layer computes the output {t.name}; is the file cut short?")
    value = ctx.values[t.index]
    if value.dtype == "f32":
        return value
    source = f"{ctx.model.file}:{t.label}"
    return ctx.builder.add("DequantizeLinear", [value], name=f"{t.label}/f32", source=source)
