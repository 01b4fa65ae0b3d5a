"""Network -> inference Graph: one input, one output, channels last, weights under the user's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainlet.errors import GraphError, ModelError
from trainlet.frontends import onnx_elementwise, onnx_norm, onnx_shapes, onnx_window  # noqa: F401  (importers)
from trainlet.frontends.importing import IMPORTERS, Import, Unsupported
from trainlet.frontends.layout import Placed, channels_last, order_of
from trainlet.frontends.network import Layer, Network
from trainlet.frontends.onnx_fold import fold, is_known
from trainlet.frontends.stored import StoredLayer
from trainlet.ir.graph import Graph, Shape, Value

# Layers that want their operand channels last, and those that pass on what their readers want.
_WINDOWS = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "BatchNormalization"}
_INDIFFERENT = {
    "Add", "Sub", "Mul", "Div", "Neg", "Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid",
    "Gelu", "Erf", "Silu",
    "Identity", "Dropout", "Cast", "Pad", "Slice", "Split", "Concat",
}  # fmt: skip

# What to do about operators that people meet often; none of ours, all with a way out.
_ADVICE = {
    **dict.fromkeys(
        ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"),
        "bring the float model, trainlet quantizes it",
    ),
    **dict.fromkeys(("Mish", "Elu", "LeakyRelu", "PRelu"), "use Relu, HardSwish or Sigmoid"),
    "LogSoftmax": "leave it out, the loss contains it",
    "Resize": "leave it out and resize the data",
    "InstanceNormalization": "use BatchNormalization",
}


@dataclass(frozen=True)
class Built:
    """A graph; which of the user's dimensions each of its input's and output's is
    (ours[i] = user's[perm[i]]); the user's shape of its output; how its weights came about."""

    graph: Graph
    input_perm: tuple[int, ...]
    output_perm: tuple[int, ...]
    output_shape: Shape
    stored: tuple[StoredLayer, ...]


def build_graph(model: Network, name: str) -> Built:
    """The graph of a network. Raises ModelError with all unsupported layers at once.

    The input (N, C, *S) of a convolutional network becomes (N, *S, C), weights (O, C, *K) become (O, *K, C);
    both keep their names.
    """
    ctx = Import(model, name)
    perm = _input_perm(model)
    shape = tuple(model.input_shape[p] for p in perm)
    ctx.define(model.input, ctx.builder.input(model.input, "f32", shape), model.input_shape, perm)
    try:
        _import_layers(ctx)
        result, user_shape, out_perm = _result(ctx)
        graph = ctx.builder.build([result])
    except GraphError as error:
        raise ModelError(f"{model.file}: {error}") from None
    return Built(graph, perm, out_perm, user_shape, tuple(ctx.stored))


def _input_perm(model: Network) -> tuple[int, ...]:
    """Channels last where the input reaches a convolution or pool before anything that depends on layout."""
    rank, front = len(model.input_shape), {model.input}
    for layer in model.layers if rank in (3, 4) else ():
        if front & set(layer.inputs):
            if layer.op in _WINDOWS:
                return channels_last(rank)
            if layer.op in _INDIFFERENT:
                front |= set(layer.outputs)
    return tuple(range(rank))


def _import_layers(ctx: Import) -> None:
    """Every layer in turn. Problems are collected, so that the user sees all of them at once."""
    problems: list[str] = []
    unknown: set[str] = set()
    for layer in ctx.model.layers:
        if layer in ctx.skipped:
            continue
        ctx.source = layer.source
        try:
            if not unknown & set(layer.inputs):
                _import_layer(ctx, layer)
                continue
            if layer.op not in IMPORTERS:
                raise _not_ours(layer)
        except Unsupported as reason:
            line = f" ({layer.line})" if layer.line else ""
            problems.append(f"{layer.source}: {_sentence(layer, str(reason))}{line}")
        unknown |= set(layer.outputs)
    if problems:
        count = f"{len(problems)} layer{'s' if len(problems) > 1 else ''}"
        advice = "replace them in the model" + (" and export it again" if "." in ctx.model.file else "")
        raise ModelError(f"{ctx.model.file}: {count} cannot be imported ({advice}): " + "; ".join(problems))


def _not_ours(layer: Layer) -> Unsupported:
    if "reason" in layer.attrs:  # the frontend could not say it in ONNX's vocabulary
        return Unsupported(str(layer.attrs["reason"]))
    advice = f"; {_ADVICE[layer.op]}" if layer.op in _ADVICE else ""
    return Unsupported(f"{layer.op} is not an operator trainlet has{advice}")


def _sentence(layer: Layer, reason: str) -> str:
    return reason if reason.startswith(layer.op) else f"{layer.op} {reason}"


def _import_layer(ctx: Import, layer: Layer) -> None:
    if is_known(ctx, layer):
        return fold(ctx, layer)
    if layer.op not in IMPORTERS:
        raise _not_ours(layer)
    try:
        return IMPORTERS[layer.op](ctx, layer)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        # The file is not checked against ONNX's rules beforehand; importers rely on them.
        raise Unsupported(f"has operands or attributes that do not fit each other ({error})") from None


def _result(ctx: Import) -> tuple[Value, Shape, tuple[int, ...]]:
    """The output: channels last where it is stored so, else as the user has it. User's shape, permutation."""
    tensor = ctx.known.get(ctx.model.output)
    if tensor is None:
        raise ModelError(
            f"{ctx.model.file}: no layer defines the output {ctx.model.output}; is the file cut short?"
        )
    if not isinstance(tensor, Placed):
        raise ModelError(f"{ctx.model.file}: output {ctx.model.output} does not depend on the input")
    rank, last = len(tensor.shape), channels_last(len(tensor.shape))
    ours = tuple(tensor.shape[p] for p in last)
    if tensor.value.shape == ours and tensor.order == order_of(tensor.shape, last):
        return tensor.value, tensor.shape, last
    ctx.source = f"{ctx.model.file}:{ctx.model.output}"
    plain: Sequence[int] = tuple(range(rank))
    return ctx.arrange(tensor, plain), tensor.shape, tuple(plain)
