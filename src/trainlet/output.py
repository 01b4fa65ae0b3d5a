"""Files for the user: whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from trainlet.errors import OutputError


@contextmanager
def whole_files(*paths: Path) -> Iterator[Path]:
    """A folder to write files of these names into; they replace `paths` when the block succeeds.

    When it fails nothing changes. Raises OutputError naming the path that cannot be written.
    """
    with TemporaryDirectory(prefix="trainlet-") as folder:
        yield Path(folder)
        for path in paths:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = path.with_name(f"{path.name}.partial")
                shutil.copyfile(Path(folder) / path.name, partial)
                partial.replace(path)
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror or error}") from None


def check_writable(path: Path) -> None:
    """Raises OutputError unless a file can be made at `path`; for a result that takes hours to compute."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
