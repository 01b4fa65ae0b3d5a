"""Model files in, Graphs out: `load` picks the frontend by content."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainlet.errors import GraphError, ModelError
from trainlet.ir import Graph

if TYPE_CHECKING:
    from trainlet.frontends.onnx import OnnxOrigin

SUPPORTED = "an ONNX file, a .tflite file, an int8 archive (.json + .npz), or IR text (.tl + .npz)"


def load(path: str | Path) -> Graph:
    """The inference graph in `path`, whatever its format: ONNX, TFLite, an int8 archive, or IR text.

    Raises ModelError naming the file when it is missing, truncated or of no supported kind.
    """
    return load_with_origin(path)[0]


def load_with_origin(path: str | Path) -> tuple[Graph, OnnxOrigin | None]:
    """`load`, and for an ONNX file how its input and output look there."""
    path = Path(path)
    if path.suffix == "" and path.with_suffix(".json").is_file():
        path = path.with_suffix(".json")
    if not path.is_file():
        raise ModelError(f"no model file {path}: give the path of {SUPPORTED}")
    from trainlet.frontends.archive import is_archive, load_archive

    if is_archive(path):
        return load_archive(path), None
    if _is_text(path):
        return _load_text(path), None
    from trainlet.frontends.tflite_model import is_tflite

    if is_tflite(path) or path.suffix == ".tflite":
        from trainlet.frontends.tflite import load_tflite

        return load_tflite(path), None
    if path.suffix in (".json", ".npz", ".txt", ".py", ".tl") or path.stat().st_size == 0:
        raise ModelError(f"{path.name} is not a model: trainlet reads {SUPPORTED}")
    from trainlet.frontends.onnx import load_onnx_with_origin

    return load_onnx_with_origin(path)


def _is_text(path: Path) -> bool:
    """Whether the first line that is neither blank nor a comment begins a graph of the IR."""
    with path.open("rb") as file:
        lines = (line.strip() for line in file.read(1 << 16).splitlines())
    return next((line for line in lines if line and not line.startswith(b"#")), b"").startswith(b"graph ")


def _load_text(path: Path) -> Graph:
    from trainlet.ir.text import load_graph

    if path.suffix != ".tl":
        raise ModelError(
            f"{path.name} holds IR text: rename it to {path.stem}.tl, beside its {path.stem}.npz"
        )
    try:
        graph = load_graph(path)
    except GraphError as error:
        raise ModelError(str(error)) from None
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or graph.state:
        raise ModelError(f"{path.name}: {graph.name} is no inference graph of one input and one output")
    return graph
