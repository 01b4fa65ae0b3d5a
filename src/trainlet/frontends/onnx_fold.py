"""Computes layers whose operands are all known: exporters emit such arithmetic on shapes and weights."""

from __future__ import annotations

import numpy as np

from trainlet.frontends.importing import Const, Import, Unsupported
from trainlet.frontends.network import Layer

# These have constant operands, or none, but not a constant result.
_RANDOM = (
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
)  # fmt: skip
_MOVES = ("Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout")


def is_known(ctx: Import, layer: Layer) -> bool:
    """Whether the layer's results follow from constants alone."""
    if "." in layer.op or layer.op in _RANDOM or layer.op in ("If", "Loop", "Scan"):
        return False
    return all(isinstance(ctx.known.get(name), Const) for name in layer.inputs if name)


def fold(ctx: Import, layer: Layer) -> None:
    """Define the layer's results as constants. A weight that is only moved or cast keeps its name.

    Raises Unsupported where the operator cannot be evaluated.
    """
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    operands = {name: ctx.known[name] for name in layer.inputs if name}
    inputs = [helper.make_empty_tensor_value_info(name) for name in operands]
    outputs = [helper.make_empty_tensor_value_info(name) for name in layer.outputs if name]
    graph = helper.make_graph([layer.proto], "constant", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", ctx.model.opset)])
    feeds = {name: c.data for name, c in operands.items() if isinstance(c, Const)}
    try:
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as error:  # the evaluator raises whatever its numpy code does
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Unsupported(f"cannot be computed from its constants ({reason})") from None
    kept = ctx.known.get(layer.input(0)) if layer.op in _MOVES else None
    for value, result in zip(outputs, results, strict=True):
        data = np.asarray(result)
        name = kept.name if isinstance(kept, Const) else value.name
        ctx.known[value.name] = Const(name, data.astype(np.float32) if data.dtype.kind == "f" else data)
