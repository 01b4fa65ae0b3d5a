"""Models in, Graphs out: `load` picks the frontend by content."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainlet.errors import GraphError, ModelError
from trainlet.ir import Graph

if TYPE_CHECKING:
    from trainlet.frontends.onnx import OnnxOrigin

SUPPORTED = "an ONNX file, a .tflite file, an int8 archive (.json + .npz), or IR text (.tl + .npz)"


def load(model: Any, example_inputs: Any = None, *, norm: str = "folded") -> Graph:
    """The inference graph of a model: the path of an ONNX file, TFLite file, int8 archive or IR text, or a
    torch.nn.Module with `example_inputs` (a tensor (N, ...) of its input's shape).

    norm: what happens to BatchNorms of a module or an ONNX file: "folded" into the layer before, or "batch":
    kept, and trained with the statistics of the batch (docs/pytorch.md). Other files have none.
    Raises ModelError naming the file when it is missing, truncated or of no supported kind.
    """
    if is_module(model):
        from trainlet.frontends.torch import from_module

        if example_inputs is None:
            name = type(model).__name__
            raise ModelError(f"{name}: give example inputs, as in load(module, torch.zeros(1, 3, 224, 224))")
        return from_module(model, example_inputs, norm)
    if example_inputs is not None:
        raise ModelError(f"example inputs go with a torch.nn.Module, not with {model}")
    return load_with_origin(model, norm)[0]


def is_module(model: Any) -> bool:
    """Whether `model` is a torch.nn.Module; PyTorch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def load_with_origin(path: str | Path, norm: str = "folded") -> tuple[Graph, OnnxOrigin | None]:
    """`load` of a file, and for an ONNX file how its input and output look there."""
    path = Path(path)
    if norm not in ("folded", "batch"):
        raise ModelError(f"norm {norm!r} is none of folded, batch")
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

    return load_onnx_with_origin(path, norm=norm)


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
