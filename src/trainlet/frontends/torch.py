"""torch.nn.Module -> inference Graph, through torch.export; parameters keep their names in the module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends import torch_pointwise  # noqa: F401  (registers translators)
from trainlet.frontends.build_graph import Built, build_graph
from trainlet.frontends.network import Layer, Network
from trainlet.frontends.torch_aten import Translation, as_array, shape_of
from trainlet.frontends.torch_export import Exported, export
from trainlet.frontends.torch_state import TorchOrigin, to_state_dict
from trainlet.ir.graph import Graph

NORMS = ("folded",)


def from_module(module: Any, example_inputs: Any, norm: str = "folded") -> Graph:
    """The float network of a module in evaluation mode, for a batch of 1.

    example_inputs: a tensor (N, ...), or a sequence of one; only its shape counts. Constants carry the
    module's names ("features.3.conv.0.weight"), weights lie as (O, *K, C), activations as (N, *S, C).
    norm: "folded": BatchNorm uses its running statistics and is folded into the layer before; the bias that
    results is named after the layer's own bias, or else after the BatchNorm's.
    Raises ModelError with everything that cannot be imported at once: module path, operator, line of Python.
    """
    return from_module_with_origin(module, example_inputs, norm)[0]


def from_module_with_origin(
    module: Any, example_inputs: Any, norm: str = "folded"
) -> tuple[Graph, TorchOrigin]:
    """`from_module`, and what `to_state_dict` needs to give trained weights back to the module."""
    if norm not in NORMS:
        raise ModelError(f"norm {norm!r} is none of {', '.join(NORMS)}")
    exported = export(module, _inputs(module, example_inputs))
    built = _build(exported)
    state = {k: as_array(v) for k, v in module.state_dict().items()}
    names = [n for s in built.stored for n in (s.weight, s.bias) if n is not None]
    imported = {n: built.graph.constants[n].data for n in names}
    origin = TorchOrigin(
        exported.name, exported.inputs[0], shape_of(_node(exported, exported.inputs[0])), built.input_perm,
        built.output_shape, built.output_perm, built.stored, imported, state,
    )  # fmt: skip
    return built.graph, origin


def _inputs(module: Any, example_inputs: Any) -> tuple[Any, ...]:
    import torch

    given = (example_inputs,) if not isinstance(example_inputs, Sequence) else tuple(example_inputs)
    tensors = tuple(torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in given)
    name = type(module).__name__
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor) or not tensors[0].ndim:
        raise ModelError(
            f"{name}: give example_inputs as one tensor (N, ...); trainlet trains networks of one"
        )
    wrong = sorted({str(p.dtype) for p in module.parameters() if p.dtype != torch.float32})
    if wrong or tensors[0].dtype != torch.float32:
        found = ", ".join(wrong) or str(tensors[0].dtype)
        raise ModelError(f"{name}: has {found} tensors where trainlet wants float32: use model.float()")
    return tensors


def _build(exported: Exported) -> Built:
    if exported.mutated:
        names = ", ".join(exported.mutated)
        raise ModelError(
            f"{exported.name}: forward writes to {names} in place, which a compiled program would not see; "
            "compute a new tensor instead"
        )
    if len(exported.inputs) != 1 or len(exported.outputs) != 1:
        raise ModelError(
            f"{exported.name}: has {len(exported.inputs)} inputs and {len(exported.outputs)} outputs; "
            "wrap it in a module that takes one tensor and returns its logits"
        )
    t, output = Translation(exported), exported.outputs[0]
    t.run()
    if output.name in t.known:
        raise ModelError(f"{exported.name}: the output does not depend on the input")
    network = Network(
        exported.name, 20, exported.inputs[0], shape_of(_node(exported, exported.inputs[0])),
        t.names[output.name], _needed(t.layers, t.names[output.name]), t.initializers,
    )  # fmt: skip
    return build_graph(network, exported.name)


def _node(exported: Exported, name: str) -> Any:
    return next(n for n in exported.nodes if n.name == name)


def _needed(layers: list[Layer], output: str) -> tuple[Layer, ...]:
    """The layers that `output` depends on, in their order."""
    needed, kept = {output}, []
    for layer in reversed(layers):
        if needed & set(layer.outputs):
            kept.append(layer)
            needed |= set(layer.inputs)
    return tuple(reversed(kept))


__all__ = ["NORMS", "TorchOrigin", "from_module", "from_module_with_origin", "to_state_dict"]
