"""Instruction counts: who is who in an image, and what a counter found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainlet.device.build import Image
from trainlet.runtime.toolchain import FLAGS, cache_folder, compiler, digest, publish

FOLDER = Path(__file__).parent / "qemu_plugin"
MEMORY_MOVES = ("memcpy", "memmove", "memset")
FIRMWARE = {
    "tl_main", "tl_reset", "tl_memory_start", "tl_stack_used", "tl_fence_raise", "tl_fault",
    "tl_context_part", "tl_console", "tl_exit", "tl_file_open", "tl_file_close", "tl_file_read",
    "tl_file_write", "tl_file_seek", "tl_keep_load", "tl_keep_save", "tl_keep_operations",
    "tl_image_begin", "tl_image_rows", "tl_image_end",
}  # fmt: skip
LOSSES = ("tl_softmax_cross_entropy", "tl_sigmoid_cross_entropy", "tl_mse")


class Call(NamedTuple):
    """One call of a kernel. Of a transfer of several words those beyond the first are extra."""

    name: str
    instructions: int
    loads: int = 0
    stores: int = 0
    extra_words: int = 0


@dataclass(frozen=True)
class Region:
    """One call of the program by the firmware: its counts, and each kernel call in it with its own.

    loads, stores: instructions that are one. extra_words: what they move beyond one word each.
    """

    name: str
    instructions: int
    calls: tuple[Call, ...]
    loads: int = 0
    stores: int = 0
    extra_words: int = 0

    def kernels(self) -> dict[str, tuple[int, int]]:
        """Kernel -> (calls, instructions), most first; "between kernels" is the program's own."""
        found: dict[str, tuple[int, int]] = {}
        for call in self.calls:
            calls, total = found.get(call.name, (0, 0))
            found[call.name] = (calls + 1, total + call.instructions)
        rest = self.instructions - sum(call.instructions for call in self.calls)
        found["between kernels"] = (0, rest)
        return dict(sorted(found.items(), key=lambda item: -item[1][1]))

    def kernel_extra_words(self) -> dict[str, int]:
        """Kernel -> extra words."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.name] = found.get(call.name, 0) + call.extra_words
        return found

    def forward(self) -> Call:
        """Of a training call: everything up to and with the loss; what is left is backward and update."""
        names = [call.name for call in self.calls]
        last = next((i for i, name in enumerate(names) if name in LOSSES), len(names) - 1)
        part = self.calls[: last + 1]
        return Call(
            "forward",
            sum(call.instructions for call in part),
            sum(call.loads for call in part),
            sum(call.stores for call in part),
            sum(call.extra_words for call in part),
        )

    def forward_instructions(self) -> int:
        """Instructions of `forward`."""
        return self.forward().instructions


@dataclass(frozen=True)
class Counts:
    """What ran. `open_in`: (entry point, kernel or "-") in which the run ended, if inside the program.

    `store`: (address, pc) of the first store outside RAM that the emulator saw, if any.
    """

    regions: tuple[Region, ...]
    open_in: tuple[str, str] | None
    store: tuple[int, int] | None
    total: int


def function_table(image: Image) -> str:
    """The roles of the functions of an image, for count.c."""
    prefix = str(image.manifest["prefix"])
    train = image.manifest["training_function"]
    entries = {f"{prefix}_{name}" for name in ("init", "predict", train, "apply")}
    lines = []
    for s in image.elf.symbols:
        if s.kind != "func" or s.bytes == 0:
            continue
        role = _role(s.name, s.file, prefix, entries)
        if role:
            lines.append(f"{role} {s.address:x} {s.address + s.bytes:x} {s.name}")
    return "\n".join(lines) + "\n"


def _role(name: str, file: str, prefix: str, entries: set[str]) -> str:
    if name in MEMORY_MOVES:
        return "K"
    if file:
        return {f"{prefix}.c": "P", "main.c": "F"}.get(file, "")
    if name in FIRMWARE:
        return "F" if name == "tl_main" else ""
    if name in entries:
        return "E"
    if name.startswith(f"{prefix}_"):
        return "P"
    return "K" if name.startswith("tl_") else ""


def read_counts(text: str, prefix: str) -> Counts:
    """The result file of count.c; entry points without the program's prefix."""
    regions: list[Region] = []
    calls: list[Call] = []
    open_in, store, total = None, None, 0
    for kind, *words in (line.split() for line in text.splitlines()):
        if kind == "call":
            calls.append(Call(words[0], *map(int, words[1:])))
        elif kind == "region":
            instructions, loads, stores, extra = map(int, words[1:])
            name = words[0].removeprefix(f"{prefix}_")
            regions.append(Region(name, instructions, tuple(calls), loads, stores, extra))
            calls = []
        elif kind == "open":
            open_in = (words[0].removeprefix(f"{prefix}_"), words[1])
        elif kind == "store":
            store = (int(words[0], 16), int(words[1], 16))
        else:
            total = int(words[0])
    return Counts(tuple(regions), open_in, store, total)


def counter_library(source: str, defines: Mapping[str, str] | None = None) -> Path:
    """count.c with qemu.c or unicorn.c around it, as a shared library of this machine; built once."""
    files = [FOLDER / source, FOLDER / "count.c", FOLDER / "transfers.c"]
    options = [f"-D{key}={value}" for key, value in (defines or {}).items()]
    flags = [FLAGS[0], "-O2", "-fPIC", "-shared", "-fvisibility=hidden", *options]
    command = [*compiler(), *flags, *map(str, files)]
    parts = [file.read_bytes() for file in (*files, *sorted(FOLDER.glob("*.h")))]
    result = cache_folder() / f"{digest(command, parts)}.so"
    if not result.exists():
        publish(result, lambda out: [*command, "-o", out])
    return result
