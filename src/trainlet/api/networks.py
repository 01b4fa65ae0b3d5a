"""What is in a network, and networks in other forms: quantized, adapted, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainlet.adapt import adapted
from trainlet.api.programs import graph_of, prepare
from trainlet.api.settings import Settings, settings_of
from trainlet.errors import CheckpointError, DataError, ModelError
from trainlet.frontends import load, load_with_origin
from trainlet.ir import Graph
from trainlet.output import whole_files
from trainlet.scheme import layers, resolve_scheme, select
from trainlet.train.parameters import Optimizer, parameters


def inspect(model: str | Path | Graph) -> dict[str, Any]:
    """Name, input, output and trainable layers of a network, each layer with its index and cost."""
    from trainlet.ir.ops.convolution import node_window

    graph = graph_of(model)
    rows = []
    for layer in layers(graph):
        s = node_window(layer.node)
        rows.append(
            {
                "index": layer.index,
                "op": layer.node.op,
                "weight": layer.weight.name,
                "bias": layer.bias.name if layer.bias is not None else None,
                "shape": list(layer.weight.shape),
                "dtype": layer.weight.dtype,
                "channels": layer.channels,
                "depthwise": layer.depthwise,
                "head": layer.is_head,
                "input_bytes": layer.node.inputs[0].bytes,  # type: ignore[union-attr]
                "macs": s.macs,
            }
        )
    x, y = graph.inputs[0], graph.outputs[0]
    return {
        "model": graph.name,
        "input": {"name": x.name, "dtype": x.dtype, "shape": list(x.shape)},
        "output": {"name": y.name, "dtype": y.dtype, "shape": list(y.shape)},
        "parameters": sum(t.value.size for t in graph.constants.values()),
        "layers": rows,
    }


def schemes(model: str | Path | Graph) -> list[dict[str, Any]]:
    """Schemes by name that fit a network: what each trains, and its analytic price (scheme/memory.py)."""
    from trainlet.passes.rebatch import rebatch
    from trainlet.scheme import analytic_bits, scheme_names

    graph = rebatch(graph_of(model), 1)
    rows = []
    for name in scheme_names(graph):
        chosen = select(resolve_scheme(name, graph), graph)
        trained = parameters(graph, chosen, Optimizer())
        rows.append(
            {
                "name": name,
                "weights": len(chosen.weights),
                "biases": len(chosen.biases),
                "trained_elements": sum(p.tensors["w"].value.size for p in trained),
                "analytic_bytes": analytic_bits(graph, chosen) // 8,
            }
        )
    return rows


def quantize(
    model: str | Path | Graph,
    data: str | Path,
    output: str | Path | None = None,
    method: str = "minmax",
    head: str = "fp32",
    samples: int = 256,
) -> Graph:
    """The int8 form of a float network, calibrated on `samples` of the training part, evenly spaced.

    With `output` it is also saved there, as IR text (.tl) and its contents (.npz) beside it.
    """
    from trainlet.data import load_data
    from trainlet.ir.text import save_graph
    from trainlet.quantize import quantize as quantize_graph

    graph = graph_of(model)
    x = load_data(data, input=graph.inputs[0], classes=None).x_train
    if samples < 1:
        raise DataError(f"{samples} calibration samples: give a positive number")
    rows = np.unique(np.linspace(0, len(x) - 1, min(samples, len(x))).astype(np.int64))
    result = quantize_graph(graph, x.batch(rows), method=method, head=head)  # type: ignore[arg-type]
    if output is not None:
        text = Path(str(output).removesuffix(".tl") + ".tl")
        with whole_files(text, text.with_suffix(".npz")) as folder:
            save_graph(result, folder / text.name)
    return result


def convert(model: str | Path, output: str | Path, norm: str = "folded") -> Graph:
    """A network as it is imported, saved as IR text `output` (.tl) and its contents (.npz) beside it.

    norm: what happens to its BatchNormalizations: "folded", or "batch": kept and trained as such.
    """
    from trainlet.ir.text import save_graph

    graph = load(model, norm=norm)
    text = Path(str(output).removesuffix(".tl") + ".tl")
    with whole_files(text, text.with_suffix(".npz")) as folder:
        save_graph(graph, folder / text.name)
    return graph


def restore(
    model: str | Path | Graph, checkpoint: str | Path
) -> tuple[Graph, Settings, dict[str, np.ndarray]]:
    """Network, settings and state of a checkpoint. Raises CheckpointError for another network's."""
    from trainlet.runtime.checkpoint import load_checkpoint

    graph = graph_of(model)
    tensors, meta = load_checkpoint(Path(checkpoint))
    if "model" not in meta:
        raise CheckpointError(f"{checkpoint} does not say which network it is of: it cannot be taken apart")
    if meta["model"] != graph.name:
        raise CheckpointError(f"{checkpoint} belongs to the network {meta['model']}, not to {graph.name}")
    return graph, settings_of(meta), tensors


def adapted_graph(model: str | Path | Graph, checkpoint: str | Path) -> Graph:
    """The network with what a checkpoint trained, as an inference graph of batch 1."""
    graph, settings, tensors = restore(model, checkpoint)
    graph, selection = prepare(graph, settings)
    return adapted(graph, tuple(parameters(graph, selection, settings.update_rule())), tensors)


def export(
    model: str | Path | Graph, checkpoint: str | Path | None, output: str | Path, to: str = "onnx"
) -> Path:
    """The adapted network as ONNX, or its parameters as safetensors; without a checkpoint as it came."""
    origin = None
    if not isinstance(model, Graph):
        model, origin = load_with_origin(model)
    graph = model if checkpoint is None else adapted_graph(model, checkpoint)
    path = Path(output)
    if to not in ("onnx", "safetensors"):
        raise ModelError(f"cannot export to {to!r}: choose onnx or safetensors")
    with whole_files(path) as folder:
        if to == "onnx":
            from trainlet.frontends.onnx_export import export_onnx

            export_onnx(graph, folder / path.name, origin=origin)
        else:
            try:
                from safetensors.numpy import save_file
            except ImportError:
                raise ModelError("writing .safetensors needs a package: pip install safetensors") from None
            arrays = {k: np.ascontiguousarray(t.data) for k, t in graph.constants.items()}
            save_file(arrays, str(folder / path.name))
    return path
