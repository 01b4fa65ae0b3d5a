"""Model files in, Graphs out: `load` picks the frontend by content."""

from __future__ import annotations

from pathlib import Path

from trainlet.errors import ModelError
from trainlet.ir import Graph

SUPPORTED = "an ONNX file, or an int8 archive (.json + .npz)"


def load(path: str | Path) -> Graph:
    """The inference graph in `path`, whatever its format: ONNX, or an int8 archive.

    Raises ModelError naming the file when it is missing, truncated or of no supported kind.
    """
    path = Path(path)
    if path.suffix == "" and path.with_suffix(".json").is_file():
        path = path.with_suffix(".json")
    if not path.is_file():
        raise ModelError(f"no model file {path}: give the path of {SUPPORTED}")
    from trainlet.frontends.archive import is_archive, load_archive

    if is_archive(path):
        return load_archive(path)
    if path.suffix in (".json", ".npz", ".txt", ".py") or path.stat().st_size == 0:
        raise ModelError(f"{path.name} is not a model: trainlet reads {SUPPORTED}")
    from trainlet.frontends.onnx import load_onnx

    return load_onnx(path)
