"""Packages for tests, and what builds them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import cmake

from tests.host.programs import network
from trainlet import api
from trainlet.api import Settings
from trainlet.package import FORMATS
from trainlet.runtime.toolchain import compiler

TESTS = Path(__file__).parent
FLAGS = ("-ffp-contract=off", "-DTL_USE_FMA=0", "-Wall", "-Wextra", "-Werror", "-O0")
CMAKE = str(Path(cmake.CMAKE_BIN_DIR) / "cmake")
SETTINGS = {
    "stochastic": Settings(scheme="last:2", master="stochastic"),
    "batch": Settings(scheme="head", batch=2),
    "accumulate": Settings(scheme="head", accumulate=True),
    "regression": Settings(scheme="head", loss="mean-squared-error"),
    "rows": Settings(scheme="head", input="rows"),
    "caller": Settings(scheme="head", input="caller"),
}


def package(
    folder: Path, form: str, board: str | Path | None = "stm32f746", kind: str = "stochastic"
) -> Path:
    """The network `residual` (int8, 9 x 7 x 3 -> 5 classes) as a package in `folder`."""
    return api.emit(network("residual", True), SETTINGS[kind], folder, board=board, format=form)


def every_package(folder: Path) -> dict[str, Path]:
    return {form: package(folder / form, form) for form in FORMATS}


def run(command: Sequence[str | Path], **options: object) -> str:
    """stdout of a command that must succeed."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return str(result.stdout)


def cc(*words: object) -> str:
    return run([*compiler(), *map(str, words)])


def sources(folder: Path) -> list[Path]:
    """The C files of a package, without its example."""
    return [path for part in ("", "kernels", "runtime") for path in sorted((folder / part).glob("*.c"))]


def cmake_build(source: Path, build: Path, *words: object) -> Path:
    """Configured and built; the folder of the results."""
    run([CMAKE, "-S", source, "-B", build, "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror", *map(str, words)])
    run([CMAKE, "--build", build, "-j", "2"])
    return build


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
