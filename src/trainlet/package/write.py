"""A package on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from trainlet.errors import BackendError
from trainlet.package.budget import check_budget
from trainlet.package.formats import FORMATS, package_files
from trainlet.plan.program import Program

if TYPE_CHECKING:
    from trainlet.device.board import Board


def write_package(
    program: Program,
    folder: Path,
    format: str = "c",  # noqa: A002
    board: str | Path | Board | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write a program in one of FORMATS into `folder`; what only an earlier package there had is removed.

    Everything is generated before anything is written. Raises BackendError for an unknown format or board,
    a node without a kernel, or a folder that is not writable; BudgetError where it exceeds the board.
    """
    from trainlet.device.board import board as find_board

    if format not in FORMATS:
        raise BackendError(f"no format {format!r}: there are {', '.join(FORMATS)}")
    part = None if board is None else find_board(board)
    if part is not None:
        check_budget(program, part)
    files = package_files(program, format, part, origin)
    try:
        for stale in _written_before(folder) - set(files):
            (folder / stale).unlink(missing_ok=True)
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BackendError(f"cannot write the program to {folder}: {error.strerror or error}") from None
    return folder


def _written_before(folder: Path) -> set[str]:
    """Files of the package that is in `folder`, as its program.json lists them; none that lead out of it."""
    found: set[str] = set()
    for root in sorted({f.root for f in FORMATS.values()}):
        try:
            about = json.loads((folder / root / "program.json").read_text(encoding="utf-8"))
            listed = {str(path) for path in about["package"]["files"]} | {f"{root}program.json"}
        except (OSError, ValueError, KeyError, TypeError):
            continue
        found |= {path for path in listed if _within(path)}
    return found


def _within(path: str) -> bool:
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts
