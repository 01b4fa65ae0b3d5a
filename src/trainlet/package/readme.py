"""README.md of a package."""

from __future__ import annotations

import trainlet
from trainlet.backends.c99.header import plan_table
from trainlet.package.budget import budget_rows
from trainlet.package.contents import FLAGS, Contents
from trainlet.package.templates import fill


def readme(c: Contents, use: str, header: str, example: str, flags: bool) -> str:
    """Plan, memory against the board's, how to build. header, example: paths. flags: as in Format."""
    rows = budget_rows(c.program, c.board)
    values = {
        "PROGRAM": c.manifest["name"],
        "VERSION": trainlet.__version__,
        "BOARD": "" if c.board is None else f" for {c.board.title}",
        "HEADER": header,
        "EXAMPLE": example,
        "BUDGET": "\n".join(f"| {memory} | {count:,} | {what} |" for memory, count, what in rows),
        "PLAN": "\n".join(plan_table(c.program)),
        "USE": use,
        "COMPILE": _compile(c, flags),
    }
    return fill("README.md.in", values)


def _compile(c: Contents, flags: bool) -> str:
    """The paragraph about flags."""
    ours = f"`{' '.join(FLAGS)}`"
    how = f"Compile with gcc or clang and {ours}" if flags else f"`src/tl_config.h` stands for {ours}"
    text = f"{how}: then a device computes, bit for bit, what `trainlet emulate` does here."
    if c.board is None:
        text += (
            " Set `TL_USE_FMA` in `tl_config.h` to 1 where the processor fuses float multiply-adds "
            "(Cortex-M4F and up); `trainlet compile --board` knows."
        )
    return text
