"""Program -> sources, lib<name>.a, <name>.h and the executable <name>, for this machine or another."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlet.backends.c99.writer import C_TYPES
from trainlet.errors import BackendError
from trainlet.ir import Graph
from trainlet.runtime.toolchain import FLAGS, build_flags, compiler, publish

if TYPE_CHECKING:
    from trainlet.api import Settings
    from trainlet.plan.budget import MemoryChoice

MAIN = Path(__file__).with_name("main.c")


@dataclass(frozen=True)
class Target:
    """zig: its target triple ("" for this machine's compiler). isa: one of backends/cpu."""

    zig: str
    isa: str = "native"
    static: bool = True


TARGETS = {
    "native": Target("", static=False),
    "x86_64-linux": Target("x86_64-linux-musl", "x86-64-v3"),
    "aarch64-linux": Target("aarch64-linux-musl", "aarch64"),
    "aarch64-macos": Target("aarch64-macos", "aarch64", static=False),
}


# Features as /proc/cpuinfo and as __builtin_cpu_supports call them; gcc and clang both know these.
CPU_SUPPORTS = {
    "avx2": "avx2", "fma": "fma", "bmi1": "bmi", "bmi2": "bmi2", "avx512f": "avx512f", "avx512vl": "avx512vl",
    "avx512dq": "avx512dq", "avx512bw": "avx512bw", "avx512cd": "avx512cd",
}  # fmt: skip
# Instruction sets as gcc and clang call them, and as zig does.
ZIG_CPUS = {"-march=armv8-a": "generic", "-march=x86-64": "x86_64", "-march=x86-64-v3": "x86_64_v3"}


def find_target(name: str) -> Target:
    """A target by name. Raises BackendError listing those there are, or where zig is missing."""
    if name not in TARGETS:
        raise BackendError(f"target {name!r} is none of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if target.zig and importlib.util.find_spec("ziglang") is None:
        raise BackendError(f"target {name} is cross-compiled by zig: pip install ziglang")
    return target


def compile_standalone(
    model: str | Path | Graph,
    settings: Settings,
    output: Path,
    target: str = "native",
    threads: int = 1,
    backend: str | None = None,
) -> tuple[Path, MemoryChoice | None]:
    """Plan, emit and build a program for one of TARGETS in the folder `output`: its executable, and how a
    budget was met. backend: as in `trainlet.compile`. Raises TrainletError."""
    from trainlet import api
    from trainlet.compiled.compile import choose_backend, plan_for, write_for
    from trainlet.plan.budget import fit_budget

    isa, graph = find_target(target).isa, model if isinstance(model, Graph) else api.load(model)
    backend, chosen = choose_backend(backend, graph), None
    if settings.budget_bytes is not None:
        settings, chosen = fit_budget(settings, lambda s: plan_for(graph, s, backend, threads, isa))
    program = plan_for(graph, settings, backend, threads, isa)
    origin = api.checkpoint_meta(program.name, settings, program.module.selection)
    write_for(program, output, backend, threads, isa, origin)
    return build_standalone(output, target, 1 if chosen is None else chosen.calls), chosen


def build_standalone(folder: Path, target_name: str, calls: int = 1) -> Path:
    """The executable of the sources in `folder` (backends' `write_sources`, `write_program`), built there.

    lib<name>.a holds the training program alone, for <name>.h; the executable adds main.c's command line.
    calls: of a program that accumulates, as many make one update.
    Raises BackendError with the compiler's first error.
    """
    target = find_target(target_name)
    manifest = json.loads((folder / "program.json").read_text())
    name = manifest["prefix"]
    shutil.copyfile(MAIN, folder / "main.c")
    (folder / "standalone.h").write_text(_header(manifest, calls))
    command, flags = _command(target), _flags(manifest, target)
    objects = folder / "objects"
    objects.mkdir(exist_ok=True)
    sources = [*sorted(folder.glob("*.c")), *sorted((folder / "kernels").glob("*.c"))]

    def compiled(source: Path) -> Path:
        chosen = _plain(flags) if source.name == "main.c" else [*flags, *_weights(source)]
        result = objects / f"{source.stem}.o"
        publish(result, lambda out: [*command, *chosen, *_include(folder), "-c", str(source), "-o", out])
        return result

    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            library = [str(o) for o in pool.map(compiled, sources) if o.name != "main.o"]
        archive = folder / f"lib{name}.a"
        archive.unlink(missing_ok=True)
        _run([*_archiver(target), "rcs", str(archive), *library])
        executable = folder / f"{name}"
        static = ["-static"] if target.static else []
        parts = [str(objects / "main.o"), str(archive), "-lm", "-pthread", *static, "-s"]
        publish(executable, lambda out: [*command, *parts, "-o", out])
        executable.chmod(0o755)
        return executable
    finally:
        shutil.rmtree(objects, ignore_errors=True)


def _command(target: Target) -> list[str]:
    if not target.zig:
        return compiler()
    return [sys.executable, "-m", "ziglang", "cc", "-target", target.zig]


def _archiver(target: Target) -> list[str]:
    if not target.zig and (ar := shutil.which("ar")):
        return [ar]
    if importlib.util.find_spec("ziglang") is None:
        raise BackendError("no archiver found: install binutils, or run `pip install ziglang`")
    return [sys.executable, "-m", "ziglang", "ar"]


def _flags(manifest: dict[str, Any], target: Target) -> tuple[str, ...]:
    if "build" not in manifest:
        return FLAGS  # the portable kernels: the same bits on every processor
    flags = build_flags(manifest["build"])
    if not target.zig:
        return flags
    return tuple(f"-mcpu={ZIG_CPUS[f]}" if f in ZIG_CPUS else f for f in flags)


def _plain(flags: Sequence[str]) -> list[str]:
    """Flags without those that let the compiler use instructions a processor may lack: main.c looks first."""
    return [f for f in flags if not f.startswith(("-march", "-mcpu", "-std"))]


def _include(folder: Path) -> list[str]:
    return ["-I", str(folder), "-I", str(folder / "kernels")]


def _weights(source: Path) -> list[str]:
    data = source.with_suffix(".bin")
    return [f'-DTL_WEIGHTS_FILE="{data}"'] if data.is_file() else []


def _run(command: Sequence[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BackendError(f"{command[0]} failed: {(result.stderr.splitlines() or ['no message'])[0]}")


def _header(manifest: dict[str, Any], calls: int) -> str:
    """standalone.h: what main.c must know of the program."""
    name, x, label = manifest["prefix"], manifest["input"], manifest["label"]
    accumulates = manifest["training_function"] == "accumulate"
    batch = int(manifest["batch"])
    outputs = int(manifest["output"]["shape"][-1])
    classifies = label["dtype"] == "s32"
    redraws = any(p.get("redrawn") for p in manifest["parameters"])
    values = {
        "NET(function)": f"{name}_##function",
        "NET_T": f"{name}_t",
        "SAMPLE_T": C_TYPES[x["dtype"]],
        "LABEL_T": C_TYPES[label["dtype"]],
        "SAMPLE_TYPE": int(x["dtype"] == "s8"),
        "LABEL_TYPE": int(not classifies),
        "SAMPLE_ELEMENTS": _size(x["shape"][1:]),
        "LABEL_ELEMENTS": 1 if classifies else outputs,
        "OUTPUTS": outputs,
        "BATCH": batch,
        "CALLS": calls,
        "ACCUMULATES": int(accumulates),
        "CLASSIFIES": int(classifies),
        "REDRAW(net, epoch)": f"{name}_redraw(net, epoch)" if redraws else "((void)(net), (void)(epoch))",
        "MODEL_ID": f"{name.upper()}_MODEL_ID",
        "STATE_BYTES": f"{name.upper()}_STATE_BYTES",
        "MODEL_NAME": json.dumps(manifest["name"]),
        "CHECK_PROCESSOR": _check(manifest.get("needs", [])),
    }
    lines = [f"#define {key} {value}" for key, value in values.items()]
    return f'/* Generated by trainlet for main.c. */\n#include "{name}.h"\n' + "\n".join(lines) + "\n"


def _check(needs: Sequence[str]) -> str:
    """C statements that end the program on a processor without the instructions it was built for."""
    known = [CPU_SUPPORTS[feature] for feature in needs if feature in CPU_SUPPORTS]
    return " ".join(
        f'if (!__builtin_cpu_supports("{feature}")) '
        f'fail("this program needs a processor with ", "{feature}; build it for another isa");'
        for feature in known
    )


def _size(shape: Sequence[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
