"""torch.nn.Module -> inference Graph, through torch.export; parameters keep their names in the module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.frontends import torch_pointwise  # noqa: F401  (registers translators)
from trainlet.frontends.build_graph import Built, build_graph
from trainlet.frontends.network import Network, reachable
from trainlet.frontends.torch_aten import Translation, as_array, shape_of
from trainlet.frontends.torch_export import Exported, export
from trainlet.frontends.torch_state import TorchOrigin, to_state_dict
from trainlet.ir.graph import Graph
from trainlet.passes.rebatch import rebatch

SAMPLES = 7  # no size that networks have
NORMS = ("folded", "batch")


def from_module(module: Any, example_inputs: Any, norm: str = "folded") -> Graph:
    """The float network of a module in evaluation mode, for a batch of 1.

    example_inputs: a tensor (N, ...), or a sequence of one; only its shape counts. Constants carry the
    module's names ("features.3.conv.0.weight"), weights lie as (O, *K, C), activations as (N, *S, C).
    norm: "folded": BatchNorm uses its running statistics and is folded into the layer before; the bias that
    results is named after the layer's own bias, or else after the BatchNorm's. "batch": BatchNorms stay;
    those at or behind what is trained use batch statistics while training and move their running ones, as
    model.train() does, those before it are as in evaluation mode.
    Raises ModelError with everything that cannot be imported at once: module path, operator, line of Python.
    """
    return from_module_with_origin(module, example_inputs, norm)[0]


def from_module_with_origin(
    module: Any, example_inputs: Any, norm: str = "folded"
) -> tuple[Graph, TorchOrigin]:
    """`from_module`, and what `to_state_dict` needs to give trained weights back to the module."""
    if norm not in NORMS:
        raise ModelError(f"norm {norm!r} is none of {', '.join(NORMS)}")
    exported, built = _import(module, _input(module, example_inputs), norm)
    state = {k: as_array(v) for k, v in module.state_dict().items()}
    names = [n for s in built.stored for n in (s.weight, s.bias) if n is not None]
    imported = {n: built.graph.constants[n].data for n in names}
    origin = TorchOrigin(
        exported.name, exported.inputs[0], (1, *_shape(exported)[1:]), built.input_perm,
        (1, *built.output_shape[1:]), built.output_perm, built.stored, imported, state,
    )  # fmt: skip
    return built.graph, origin


def _import(module: Any, example: Any, norm: str) -> tuple[Exported, Built]:
    """Through a batch of several samples, in which a layout cannot confuse the batch with what has size 1;
    through a batch of one where the module allows no other."""
    try:
        exported = export(module, example, SAMPLES)
        built = _build(exported, norm)
        return exported, replace(built, graph=rebatch(built.graph, 1))
    except ModelError:
        try:
            exported = export(module, example, 1)
            return exported, _build(exported, norm)
        except ModelError as error:
            raise error from None


def _input(module: Any, example_inputs: Any) -> Any:
    """The one example tensor. Raises ModelError where there are several, or something is not float32."""
    import torch

    given = tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)
    tensors = [torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in given]
    name = type(module).__name__
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor) or tensors[0].ndim < 2:
        raise ModelError(
            f"{name}: give example inputs as one tensor (N, ...); trainlet trains networks of one"
        )
    wrong = sorted({str(p.dtype) for p in module.parameters() if p.dtype != torch.float32})
    if wrong or tensors[0].dtype != torch.float32:
        found = ", ".join(wrong) or str(tensors[0].dtype)
        raise ModelError(f"{name}: has {found} tensors where trainlet wants float32: use .float()")
    return tensors[0]


def _build(exported: Exported, norm: str) -> Built:
    if len(exported.inputs) != 1 or len(exported.outputs) != 1:
        raise ModelError(
            f"{exported.name}: has {len(exported.inputs)} inputs and {len(exported.outputs)} outputs; "
            "wrap it in a module that takes one tensor and returns its logits"
        )
    t, output = Translation(exported, norm), exported.outputs[0]
    t.run()
    if output.name in t.known:
        raise ModelError(f"{exported.name}: the output does not depend on the input")
    network = Network(
        exported.name, 20, exported.inputs[0], _shape(exported),
        t.names[output.name], reachable(t.layers, t.names[output.name]), t.initializers,
    )  # fmt: skip
    problems = [f"{exported.name} {p}" for p in exported.problems]
    problems += [f"{exported.name} writes to {n} in place: compute a new tensor" for n in exported.mutated]
    if not problems:
        return build_graph(network, exported.name)
    try:
        build_graph(network, exported.name)
    except ModelError as more:
        problems.append(str(more))
    raise ModelError(
        f"{exported.name} is not one static graph (use torch.where instead of branches, or move them out of "
        f"forward): {'; '.join(problems)}"
    )


def _shape(exported: Exported) -> tuple[int, ...]:
    return shape_of(next(n for n in exported.nodes if n.name == exported.inputs[0]))


__all__ = ["NORMS", "TorchOrigin", "from_module", "from_module_with_origin", "to_state_dict"]
