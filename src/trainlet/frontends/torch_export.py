"""torch.nn.Module -> what torch.export sees in it: ATen nodes, named tensors, lines of Python."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
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
    problems: tuple[str, ...]


def export(module: Any, example: Any, batch: int) -> Exported:
    """The module in evaluation mode for `batch` samples of the example's shape (N, ...).

    The module is left as it was. A module that is not one static graph comes back with `problems`, and with a
    graph of what its branches were for the example, so that other problems can be found as well.
    Raises ModelError where not even that is possible.
    """
    import torch

    name = type(module).__name__
    args = (example[:1].detach().expand(batch, *example.shape[1:]).contiguous(),)
    problems: tuple[str, ...] = ()
    with evaluation(module), _silence(), torch.no_grad():
        try:
            program = torch.export.export(module, args)
        except Exception as error:  # dynamo, the symbolic shapes and the module itself each raise their own
            program, problems = _draft(name, module, args, error)
        program = program.run_decompositions(_decompositions())
    return _read(name, program, problems)


@contextmanager
def _silence() -> Iterator[None]:
    """What torch.export logs and prints on its way to an error is said by our own message."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _draft(name: str, module: Any, args: tuple[Any, ...], error: Exception) -> tuple[Any, tuple[str, ...]]:
    """The graph for this very example, and every place where it depends on the example's values."""
    import torch

    try:
        program: Any = torch.export.draft_export(module, args)
        frames = [f.data["user_stack"][-1] for f in program._report.failures]
        lines = [f"line {f['line']}: {f['loc']}" for f in frames]
    except Exception:  # a report of failures has no contract of its own
        raise ModelError(_not_static(name, error)) from None
    if not lines:
        raise ModelError(_not_static(name, error))
    return program, tuple(dict.fromkeys(f"depends on the values of tensors at {line}" for line in lines))


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


def _read(name: str, program: Any, problems: tuple[str, ...]) -> Exported:
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
    return Exported(name, nodes, tensors, inputs, outputs, tuple(written.values()), problems)


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
