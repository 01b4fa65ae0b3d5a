"""Program -> C files for a CPU: the same contract as c99's, other kernels, constants as one file of bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainlet.backends.c99.data import embedding_source, flash_tensors
from trainlet.backends.c99.emit import INCLUDES, KERNEL_FOLDER, describe, origin_of
from trainlet.backends.c99.entry import entry_points
from trainlet.backends.c99.header import header, plan_table
from trainlet.backends.c99.manifest import manifest
from trainlet.backends.c99.redraw import redraw_source
from trainlet.backends.c99.writer import C_TYPES, identifier
from trainlet.backends.cpu.choices import Choices
from trainlet.backends.cpu.fuse import STARTS, endings
from trainlet.backends.cpu.sources import kernel_files
from trainlet.backends.cpu.target import ALIGNMENT, ISAS, Target, target
from trainlet.backends.cpu.weights import Blob, padded
from trainlet.backends.cpu.writer import CpuWriter, row_of, statement
from trainlet.errors import BackendError, BudgetError
from trainlet.ir import Graph
from trainlet.plan.program import Program, Watch, over_budget
from trainlet.plan.program import plan as plan_module
from trainlet.train.autodiff import TrainingModule

CPU_INCLUDES = (
    "tl_check.h",
    "tl_chunks.h",
    "tl_dense.h",
    "tl_depthwise.h",
    "tl_gemm.h",
    "tl_lines.h",
    "tl_maxpool.h",
    "tl_parallel.h",
    "tl_rows.h",
    "tl_step.h",
    "tl_winograd.h",
)

# Not here: streaming by rows and hidden channels by groups, which trade time for memory. "recompute" does so
# only where a budget asks for it.
PASSES = (
    "fold-constants",
    "fold-overlays",
    "eliminate-dead",
    "fuse",
    "reorder",
    "recompute",
    "reuse-in-place",
)


def plan_program(
    module: TrainingModule,
    threads: int = 1,
    isa: str = "native",
    budget_bytes: int | None = None,
    watch: Watch = lambda name, graph: None,
    arena_target_bytes: int | None = None,
    choices: Choices | None = None,
) -> Program:
    """The plan of a module for this backend: tensors at cache lines, scratch for `threads` threads.

    Raises BudgetError as `plan` does, BackendError for a node without a kernel.
    """
    program = plan_module(
        module,
        lambda node: 0,
        None,
        watch,
        [name for name in PASSES if name != "recompute" or arena_target_bytes is not None],
        alignment=ALIGNMENT,
        finish=keep_apart,
        arena_target_bytes=arena_target_bytes,
    )
    program = _measured(program, _write(program, target(isa, threads, choices)))
    if budget_bytes is not None and program.ram_bytes > budget_bytes:
        raise BudgetError(over_budget(program, budget_bytes))
    return program


def keep_apart(graph: Graph) -> Graph:
    """Depthwise input gradients get memory of their own: in place they would have to keep rows aside."""

    def apart(node: Any) -> Any:
        if node.op != "ConvInputGrad" or node.attrs.get("inplace") != 0:
            return node
        return replace(node, attrs={k: v for k, v in node.attrs.items() if k != "inplace"})

    return graph.with_nodes(apart(n) for n in graph.nodes)


@dataclass(frozen=True)
class _Written:
    """A program's C before it is put into files."""

    shapes: Mapping[str, str]
    bodies: list[str]
    init: list[str]
    blob: Blob
    scratch_bytes: Mapping[str, int]  # by function


def write_program(
    program: Program,
    folder: Path,
    threads: int = 1,
    isa: str = "native",
    origin: Mapping[str, Any] | None = None,
    choices: Choices | None = None,
) -> Path:
    """Write sources, kernels, constants and manifest of `program` into `folder` (made if need be).

    threads: the most a kernel uses. isa: a name of target.ISAS, or "native". choices: kernels by measurement,
    the same that the plan was made with. Everything is generated before
    anything is written. Raises BackendError: no kernel, an unknown isa, a folder that is not writable.
    """
    to = target(isa, threads, choices)
    written = _write(program, to)
    program = _measured(program, written)
    name = identifier(program.name)
    facts = {
        **manifest(program),
        "alignment": ALIGNMENT,
        "build": {"backend": "cpu", "isa": to.isa, "threads": threads, "lanes": to.lanes},
        "needs": list(ISAS[to.isa].features),
    }
    if origin is not None:
        facts["origin"] = dict(origin)
    files = {
        f"{name}.h": header(program, ALIGNMENT),
        f"{name}.c": _source(program, name, written, to),
        f"{name}_weights.c": embedding_source(f"{name}_weights", ALIGNMENT),
        "program.json": json.dumps(facts, indent=1) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        with (folder / f"{name}_weights.bin").open("wb") as file_of_weights:
            written.blob.write(file_of_weights)
        (folder / "kernels").mkdir(exist_ok=True)
        for source in kernel_files(KERNEL_FOLDER, files[f"{name}.c"]):
            shutil.copyfile(source, folder / "kernels" / source.name)
    except OSError as error:
        raise BackendError(f"cannot write the program to {folder}: {error.strerror or error}") from None
    return folder


def _measured(program: Program, written: _Written) -> Program:
    """The program with the scratch that its kernels take, and the constants as they are stored."""
    scratch = written.scratch_bytes
    functions = {k: replace(f, scratch_bytes=scratch[k]) for k, f in program.functions.items()}
    sizes = {**program.bytes, "scratch": max(scratch.values()), "flash": written.blob.bytes}
    return replace(program, functions=functions, bytes=sizes)


def _write(program: Program, to: Target) -> _Written:
    shapes: dict[str, str] = {}
    blob = Blob(flash_tensors(program))
    bodies: list[str] = []
    scratch: dict[str, int] = {}
    steps = 0
    for which in program.functions:
        c = _writer(program, which, shapes, blob, to)
        c.first_step = steps
        steps += len(program.functions[which].graph.nodes)
        bodies += _function(program, which, c)
        scratch[which] = c.most_bytes
    return _Written(
        shapes,
        bodies,
        [*redraw_source(program, identifier(program.name)), *_init(program, blob)],
        blob,
        scratch,
    )


def _writer(program: Program, which: str, shapes: dict[str, str], blob: Blob, to: Target) -> CpuWriter:
    f = program.functions[which]
    return CpuWriter(f.locations, blob, f.graph.scales, shapes, to, blob)


def _function(program: Program, which: str, c: CpuWriter) -> Iterator[str]:
    """The prefix and the body of a function."""
    f, name = program.functions[which], identifier(program.name)
    ends = endings(f, lambda node: node.op in STARTS and row_of(node) is not None)
    arguments = {v.name for v in f.graph.inputs if f.locations[v.name].memory == "argument"}
    cut = f.prefix_steps if which != "apply" else 0
    parts = [("prefix", 0, cut)] if which != "apply" else []
    ends = _uncut(ends, cut, c, f.graph)
    done = {i for e in ends.values() for i in e.nodes}
    for part, first, last in [*parts, ("body", cut, len(f.graph.nodes))]:
        given = "".join(f", float {a}" for a in ("lr", "factor") if a in arguments and part == "body")
        yield f"static void {which}_{part}({name}_t *m{given}) {{"
        yield "  (void)m;"
        for i in range(first, last):
            if i not in done:
                c.start(ends[i], f.graph.nodes[i], i)
                yield from _statement(c, f.graph, i)
                c.most_bytes = max(c.most_bytes, c.used_bytes)
        yield "  TL_STEP(-1);"
        yield "}"
        yield ""


def _uncut(ends: Mapping[int, Any], cut: int, c: CpuWriter, graph: Graph) -> dict[int, Any]:
    """Endings, those that would reach over the end of the prefix shortened to their own node."""
    from trainlet.backends.cpu.fuse import own_ending

    found = dict(ends)
    for i, e in ends.items():
        if i < cut and any(j >= cut for j in e.nodes):
            for j in (i, *e.nodes):
                found[j] = own_ending(graph.nodes[j])
    return found


def _statement(c: CpuWriter, graph: Graph, i: int) -> Iterator[str]:
    node = graph.nodes[i]
    lines = statement(c, node)
    if not lines:
        return
    fused = "".join(f" + {graph.nodes[j].op}" for j in c.ending.nodes)
    yield f"  {{ /* {i}: {node.op}{fused} -> {describe(c.ending.out or node.output)}{origin_of(node)} */"
    if any("scratch" in line for line in lines):
        yield "    void *const scratch = m->scratch;"
    yield f"    TL_STEP({c.first_step + i});"
    for line in lines:
        yield f"    {line}"
    yield "  }"


def _init(program: Program, blob: Blob) -> Iterator[str]:
    name = identifier(program.name)
    yield f"void {name}_init({name}_t *m, uint32_t seed) {{"
    yield "  memset(m, 0, sizeof *m);"
    for p in program.module.parameters:
        for role in ("w", "base", "channels"):
            if role not in p.tensors:
                continue
            v, start = p.tensors[role].value, f"{p.name}.{role}.start"
            blob.tensors = {**blob.tensors, start: p.tensors[role]}
            at = f"STATE({C_TYPES[v.dtype]}, {program.state_offsets[v.name]})"
            yield f"  memcpy({at}, {blob[start]}, {v.bytes});"
    if "rng" in program.state:
        yield f"  STATE(uint32_t, {program.state_offsets['rng']})[0] = seed;"
    else:
        yield "  (void)seed;"
    yield "}"
    yield ""


def _source(program: Program, name: str, written: _Written, to: Target) -> str:
    parts = [
        f"/* {program.name}: the training program. Generated by trainlet; the contract is {name}.h.",
        *(f" * {line}".rstrip() for line in plan_table(program)),
        " */",
        f'#include "{name}.h"',
        "",
        "#include <string.h>",
        "",
        *(f'#include "{h}"' for h in (*INCLUDES, *CPU_INCLUDES)),
        "",
        f"#if TL_VL != {to.lanes}",
        f"#error this program is for {to.isa}: compile it with {' '.join(ISAS[to.isa].flags)}",
        "#endif",
        "",
        "#ifdef TL_PROFILE",
        '#include "tl_profile.h"',
        "#define TL_STEP(i) tl_profile_mark(i)",
        "#else",
        "#define TL_STEP(i)",
        "#endif",
        "#ifndef TL_INFINITY",
        "#define TL_INFINITY __builtin_inff()",
        "#endif",
        f"extern const unsigned char {name}_weights[];",
        f"#define WEIGHTS(type, offset) ((const type *)(const void *)({name}_weights + (offset)))",
        "#define ARENA(type, offset) ((type *)(void *)((uint8_t *)m->arena + (offset)))",
        "#define STATE(type, offset) ((type *)(void *)((uint8_t *)m->state + (offset)))",
        "#define SCRATCH(offset) ((float *)(void *)((uint8_t *)m->scratch + (offset)))",
        "",
        *(f"static const tl_conv_shape {v} = {{{k}}};" for k, v in written.shapes.items()),
        "",
        *written.init,
        *written.bodies,
        *entry_points(program, name),
    ]
    return "\n".join(parts) + "\n"


__all__ = ["padded", "plan_program", "write_program"]
