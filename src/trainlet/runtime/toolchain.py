"""Finding a C compiler and building an emitted program into a shared library, cached by content."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from trainlet.errors import BackendError

# -ffp-contract=off with an explicit fmaf: the same bits whatever the optimisation level (mcu.md).
FLAGS = ("-std=c99", "-O3", "-ffp-contract=off", "-fno-math-errno", "-DTL_USE_FMA=1", "-fPIC")
# Programs of backends/cpu: products are contracted wherever the target can (docs/cpu-backend.md).
CPU_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-DTL_USE_FMA=1",
    "-fPIC",
    "-pthread",
)
# Over FLAGS, for what is generated: a list of calls, in which nothing is to be gained by optimizing it.
GENERATED = ("-O0", "-fno-sanitize=all")  # zig sanitizes what is not optimized
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror")


def compiler() -> list[str]:
    """The C compiler's command: $CC, cc, gcc, clang, or `zig cc` from PyPI's ziglang.

    Raises BackendError saying what to install when there is none.
    """
    if given := os.environ.get("CC"):
        if shutil.which((given.split() or [""])[0]):
            return given.split()
        raise BackendError(f"the C compiler CC={given} does not exist: unset CC, or name one that does")
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise BackendError("no C compiler found: install gcc or clang, or run `pip install ziglang`")


def native_flags(command: Sequence[str]) -> tuple[str, ...]:
    """Tuning for this machine's instruction set."""
    return ("-mcpu=native",) if "ziglang" in command else ("-march=native",)


def build_flags(build: Mapping[str, Any]) -> tuple[str, ...]:
    """Compiler flags of a program of backends/cpu, from the "build" of its manifest."""
    from trainlet.backends.cpu.target import ISAS

    return (*CPU_FLAGS, *ISAS[build["isa"]].flags)


def check_processor(needs: Sequence[str]) -> None:
    """Raises BackendError where this processor lacks an instruction set extension that a program uses."""
    from trainlet.backends.cpu.target import cpu_features

    have = cpu_features() if needs else set()
    if missing := [name for name in needs if have and name not in have]:
        raise BackendError(
            f"the program was built for a processor with {', '.join(missing)}, which this one lacks: "
            'compile it here, or with isa="x86-64"'
        )


def build_shared(
    folder: Path, flags: Sequence[str] = FLAGS, native: bool = True, generated: Sequence[str] = ()
) -> Path:
    """Shared library of the emitted sources in `folder`; built once per content, flags and compiler.

    generated: further flags for all but the kernels. Objects are kept one by one, so kernels are compiled
    once for all programs. Raises BackendError with the compiler's first error.
    """
    command = compiler()
    version = [compiler_version(tuple(command))]
    if native:
        flags = (*flags, *native_flags(command))
        version.append(processor())
    program = sorted(folder.glob("*.c"))
    sources = [*program, *sorted((folder / "kernels").glob("*.c"))]
    paths = sorted([*folder.glob("*.h"), *(folder / "kernels").glob("*.h")])
    headers = {h.name: _Header(h, h.read_bytes()) for h in paths}

    def compiled(source: Path) -> Path:
        chosen = (*flags, *generated) if source in program else flags
        return _object(command, version, source, headers, folder, chosen)

    with ThreadPoolExecutor(free_cores()) as pool:
        objects = list(pool.map(compiled, sources))
    key = digest([*command, *version, *flags, *(o.name for o in objects)], [])
    library = cache_folder() / f"{key}.so"
    if not library.exists():
        publish(library, lambda out: [*command, *flags, "-shared", *map(str, objects), "-lm", "-o", out])
    return library


@cache
def compiler_version(command: tuple[str, ...]) -> str:
    """What changes when the compiler does: its command, and what it says of itself."""
    said = subprocess.run([*command, "--version"], capture_output=True, text=True)
    return " ".join(command) + said.stdout


@cache
def processor() -> str:
    """Instruction sets of this machine: a program built for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x for x in lines if x.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def free_cores() -> int:
    """Cores that nobody else uses, at least one: parallel trials share them."""
    cores = os.cpu_count() or 1
    try:
        return max(1, min(cores, round(cores + 1 - os.getloadavg()[0])))  # one of the load is us
    except (AttributeError, OSError):
        return cores


@dataclass(frozen=True)
class _Header:
    path: Path
    contents: bytes

    @cached_property
    def includes(self) -> list[str]:
        return INCLUDE.findall(self.contents.decode())


def _object(
    command: Sequence[str],
    version: Sequence[str],
    source: Path,
    headers: Mapping[str, _Header],
    folder: Path,
    flags: Sequence[str],
) -> Path:
    text = source.read_bytes()
    near = _included(text.decode(), headers)
    data = source.with_suffix(".bin")  # what the source includes as bytes
    parts = [text, *(h.contents for h in near), *([data.read_bytes()] if data.exists() else [])]
    key = digest([*command, *version, *flags, source.name], parts)
    result = cache_folder() / f"{key}.o"
    if not result.exists():
        include = ["-I", str(folder / "kernels"), "-I", str(folder)]
        include += [f'-DTL_WEIGHTS_FILE="{data}"'] if data.exists() else []
        publish(result, lambda out: [*command, *flags, *include, "-c", str(source), "-o", out])
    return result


def _included(source: str, headers: Mapping[str, _Header]) -> list[_Header]:
    """The headers among `headers` that a source includes, directly or not."""
    found: dict[str, None] = {}
    queue = INCLUDE.findall(source)
    while queue:
        name = queue.pop()
        if name in headers and name not in found:
            found[name] = None
            queue += headers[name].includes
    return [headers[name] for name in sorted(found)]


def publish(target: Path, command: object) -> None:
    """Run a compile into a temporary file, then move it in place: never a half-written result."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, suffix=target.suffix)
    os.close(handle)
    result = subprocess.run(command(temporary), capture_output=True, text=True)  # type: ignore[operator]
    if result.returncode != 0:
        Path(temporary).unlink()
        lines = result.stderr.splitlines()
        first = next((line for line in lines if "error" in line), lines[0] if lines else "")
        tool = command(temporary)[0]  # type: ignore[operator]
        raise BackendError(f"the C compiler {tool} failed: {first or f'exit code {result.returncode}'}")
    Path(temporary).replace(target)


def digest(words: Sequence[str], parts: Sequence[bytes]) -> str:
    state = hashlib.sha256("\0".join(words).encode())
    for part in parts:
        state.update(part)
    return state.hexdigest()[:32]


def cache_folder() -> Path:
    root = os.environ.get("TRAINLET_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(root) / "trainlet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"trainlet-{os.getuid() if hasattr(os, 'getuid') else 0}"
        folder.mkdir(parents=True, exist_ok=True)
    return folder
