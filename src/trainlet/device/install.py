"""What to install where a command is missing: the system's package, or PyPI's, which needs no root."""

from __future__ import annotations

from collections.abc import Sequence

# Command -> Debian's package, where that has another name.
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-system-riscv64": "qemu-system-misc",
}


def routes(commands: Sequence[str], wheels: Sequence[str]) -> str:
    """Every way to get there, in words; "" where there is none."""
    found = [f"`apt-get install {PACKAGES.get(c, c)}` (for {c})" for c in commands]
    return " or ".join([*found, *(f"`pip install {w}`" for w in wheels)])
