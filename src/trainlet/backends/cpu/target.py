"""What a CPU program is built for: instruction set, threads."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from pathlib import Path

from trainlet.backends.cpu.choices import Choices
from trainlet.errors import BackendError


@dataclass(frozen=True)
class Isa:
    """An instruction set: floats in a register, compiler flags, what a processor must have."""

    lanes: int
    flags: tuple[str, ...]
    features: tuple[str, ...] = ()


ISAS = {
    "x86-64": Isa(4, ("-march=x86-64",)),
    "x86-64-v3": Isa(8, ("-march=x86-64-v3",), ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe")),
    "x86-64-v4": Isa(
        16,
        ("-march=x86-64-v4",),
        ("avx2", "fma", "bmi2", "avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd"),
    ),
    "aarch64": Isa(4, ()),
}
ALIGNMENT = 64  # a cache line, and the widest register


def native_isa() -> str:
    """The largest instruction set of the table that this machine has. Raises BackendError for others."""
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return "aarch64"
    if machine not in ("x86_64", "amd64"):
        raise BackendError(f"no CPU backend for a {machine} processor: choose an isa of {', '.join(ISAS)}")
    have = cpu_features()
    fitting = [name for name, isa in ISAS.items() if name.startswith("x86") and set(isa.features) <= have]
    return fitting[-1]


def cpu_features() -> set[str]:
    """Names of this processor's instruction set extensions, as Linux lists them (empty elsewhere)."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return set()
    lines = (line.split(":", 1)[1] for line in path.read_text().splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())


@dataclass(frozen=True)
class Target:
    """`isa`: a name of ISAS; `threads`: the most that work on a kernel; `choices`: what was measured here."""

    isa: str
    threads: int = 1
    choices: Choices = field(default_factory=Choices)

    @property
    def lanes(self) -> int:
        return ISAS[self.isa].lanes


def target(isa: str, threads: int, choices: Choices | None = None) -> Target:
    """The target of these names. Raises BackendError for an unknown isa or impossible threads."""
    name = native_isa() if isa == "native" else isa
    if name not in ISAS:
        raise BackendError(f"isa {isa!r} is none of native, {', '.join(ISAS)}")
    if not 1 <= threads <= 64:
        raise BackendError(f"{threads} threads: choose 1 to 64")
    return Target(name, threads, choices or Choices())
