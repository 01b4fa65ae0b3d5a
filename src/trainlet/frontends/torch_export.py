"""torch.nn.Module -> what torch.export sees in it: ATen nodes, named tensors, lines of Python."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainlet.errors import ModelError

# Kept whole, although core ATen takes them apart: we have them as they are.
KEPT = (
    "linear.default", "scaled_dot_product_attention.default", "hardswish.default", "hardsigmoid.default",
    "silu.default", "matmul.default", "adaptive_avg_pool2d.default", "avg_pool2d.default",
)  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A module as torch.export sees it. `tensors`: placeholder -> (name in the module, tensor)."""

    name: str
    nodes: tuple[Any, ...]
    tensors: Mapping[str, tuple[str, Any]]
    inputs: tuple[str, ...]
    outputs: tuple[Any, ...]
    mutated: tuple[str, ...]


def export(module: Any, example: Any, batch: int) -> Exported:
    """The module in evaluation mode for `batch` samples of the example's shape (N, ...).

    The module is left as it was. Raises ModelError where it cannot be one static graph, naming the line.
    """
    import torch

    name = type(module).__name__
    args = (example[:1].detach().expand(batch, *example.shape[1:]).contiguous(),)
    with evaluation(module), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, args)
        except Exception as error:  # dynamo, the symbolic shapes and the module itself each raise their own
            raise ModelError(_not_static(name, error)) from None
        program = program.run_decompositions(_decompositions())
    return _read(name, program)


@contextmanager
def evaluation(module: Any) -> Iterator[None]:
    """The module in evaluation mode, every submodule's mode restored afterwards."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode


def _decompositions() -> Any:
    import torch

    table = torch.export.default_decompositions()
    for kept in KEPT:
        op, _, overload = kept.partition(".")
        table.pop(getattr(getattr(torch.ops.aten, op), overload), None)
    return table


def _read(name: str, program: Any) -> Exported:
    signature, state = program.graph_signature, {**program.state_dict, **program.constants}
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    nodes = tuple(program.graph.nodes)
    placeholders = {n.name: n for n in nodes if n.op == "placeholder"}
    tensors = {k: (target, state[target].detach()) for k, target in named.items() if k in placeholders}
    written = {**signature.buffers_to_mutate, **signature.user_inputs_to_mutate}
    results = next(n for n in nodes if n.op == "output").args[0]
    outputs = tuple(r for r in results if hasattr(r, "name") and r.name not in written)
    inputs = tuple(str(i) for i in signature.user_inputs if i in placeholders)
    return Exported(name, nodes, tensors, inputs, outputs, tuple(written.values()))


def module_path(node: Any) -> str:
    """The submodule a node comes from: "features.3.conv", "" at the top."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*(.*)')


def python_line(trace: str | None) -> str:
    """The innermost line of the user's own code in a stack trace: "net.py:12: y = x.sort()"."""
    frames = _FRAME.findall(trace or "")
    own = [f for f in frames if f"{Path('torch') / 'nn' / 'modules'}" not in f[0]] or frames
    if not own:
        return ""
    file, line, _, code = own[-1]
    return f"{Path(file).name}:{line}: {code.strip()}"


def _not_static(name: str, error: Exception) -> str:
    """What torch.export said, in a sentence, with the user's line where it names one."""
    text = str(error)
    first = next((s.strip() for s in text.splitlines() if s.strip()), type(error).__name__)
    line = python_line(text)
    where = f" at {line}" if line else ""
    return (
        f"{name} is not one static graph{where} ({type(error).__name__}: {first}); "
        "control flow must not depend on data: use torch.where, or move it out of forward"
    )
