"""Compiled programs by content: the same model, settings, trainlet and compiler compile once."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import trainlet
from trainlet.ir import Graph
from trainlet.ir.text import print_graph
from trainlet.runtime.toolchain import FLAGS, cache_folder, compiler, compiler_version, processor

DONE = "compiled.json"  # written last: a folder that has it is whole
LIMIT_BYTES = 8 * 2**30


def program_key(graph: Graph, about: Mapping[str, Any]) -> str:
    """Hash of network, weights, settings, this trainlet, the C compiler, its flags, and the processor."""
    state = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
    for word in (
        trainlet.__version__,
        package_digest(),
        compiler_version(tuple(compiler())),
        " ".join(FLAGS),
        processor(),
    ):
        state.update(word.encode() + b"\0")
    state.update(print_graph(graph).encode())
    for name, tensor in graph.constants.items():
        state.update(name.encode())
        state.update(np.ascontiguousarray(tensor.data).data)
    return state.hexdigest()[:32]


def entry(
    key: str, make: Callable[[Path], Mapping[str, Any]], use: bool = True, kind: str = "programs"
) -> tuple[Path, dict[str, Any]]:
    """Folder of the program `key` and what `make(folder)` said of it, made if it is not there yet.

    A folder appears whole or not at all. `use` False: made anew.
    """
    root = cache_folder() / kind
    folder = root / key
    if use and (about := _about(folder)) is not None:
        os.utime(folder)
        return folder, about
    root.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=root, prefix=f".{key}-"))
    try:
        about = dict(make(partial))
        (partial / DONE).write_text(json.dumps(about))
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            if _about(folder) is None:
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _trim(root, folder)
    return folder, about


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / DONE).read_text()))
    except (OSError, ValueError):
        return None


def _trim(root: Path, keep: Path) -> None:
    """Remove the programs unused for longest while all of them exceed LIMIT_BYTES (TRAINLET_CACHE_BYTES)."""
    limit = int(os.environ.get("TRAINLET_CACHE_BYTES", LIMIT_BYTES))
    folders = sorted((f for f in root.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime)
    sizes = {f: sum(p.stat().st_size for p in f.rglob("*") if p.is_file()) for f in folders}
    total = sum(sizes.values())
    for folder in folders:
        if total <= limit:
            return
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]


@functools.cache
def package_digest() -> str:
    """Hash of this package's files: a development version changes without its number."""
    root, state = Path(trainlet.__file__).parent, hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".c", ".h", ".toml", ".in")):
        state.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return state.hexdigest()
