"""Int8 archives `<name>.json` + `<name>.npz`: published quantized networks, exact to the bit.

The json lists nodes in execution order (conv2d, add, global_avgpool) with scales and zero points;
the npz holds int8 weights (OIHW), int32 biases and fp32 scales per output channel.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainlet.errors import ModelError
from trainlet.ir import Graph, GraphBuilder, Quant, Value

Entry = Mapping[str, Any]


def load_archive(path: Path) -> Graph:
    """The network of `path` (its .json or .npz; the other lies beside it) as an int8 Graph.

    The last convolution, after the global pool, becomes a float Gemm "classifier" on dequantized
    features: a head of fp32 is worth 2.3 points on average (design notes, "Forward").
    Raises ModelError when either file is missing, truncated or of another kind.
    """
    spec, arrays = _read(path.with_suffix(".json"), path.with_suffix(".npz"))
    try:
        return _Importer(spec, arrays, path.with_suffix(".json").name).graph()
    except KeyError as error:
        raise ModelError(f"{path.name}: the archive lacks {error}; export it again") from None


def is_archive(path: Path) -> bool:
    """Whether `path` is half of an archive: a json of nodes, or an npz with such a json beside it."""
    spec = path.with_suffix(".json")
    if path.suffix not in (".json", ".npz") or not spec.is_file():
        return False
    return b'"nodes"' in spec.read_bytes()


def _read(spec: Path, arrays: Path) -> tuple[Entry, Mapping[str, np.ndarray]]:
    for file in (spec, arrays):
        if not file.is_file():
            raise ModelError(f"{file.name} is missing: an int8 archive is a .json and a .npz side by side")
    try:
        entries = json.loads(spec.read_text())
    except ValueError as error:
        raise ModelError(f"{spec.name} is not valid JSON ({error}); copy the archive again") from None
    try:
        with np.load(arrays) as file:
            return entries, {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{arrays.name} is truncated or not an npz file ({error})") from None


class _Importer:
    def __init__(self, spec: Entry, arrays: Mapping[str, np.ndarray], file: str) -> None:
        self.spec, self.arrays, self.file = spec, arrays, file
        self.b = GraphBuilder(spec["model"])
        entry = spec["input"]
        _, channels, height, width = entry["shape_nchw"]
        x = self.b.input("x", "s8", (1, height, width, channels), Quant(_f32(entry["scale"]), entry["zero"]))
        self.values: dict[str, Value] = {"input": x}

    def graph(self) -> Graph:
        steps = {"conv2d": self.conv, "add": self.add, "global_avgpool": self.pool}
        for entry in self.spec["nodes"]:
            if entry["op"] not in steps:
                raise ModelError(f"{self.file}: node {entry['name']} has the unknown op {entry['op']}")
            self.values[entry["name"]] = steps[entry["op"]](entry)
        return self.b.build([self.values[self.spec["nodes"][-1]["name"]]])

    def conv(self, e: Entry) -> Value:
        if e["in_hw"] == [1, 1] and e["name"] == "classifier":
            return self.classifier(e)
        name, b, where = e["name"], self.b, f"{self.file}:{e['name']}"
        scale = self.arrays[e["w_scales"]]
        w_scales = b.constant(f"{name}/w_scales", scale)
        weight = np.transpose(self.arrays[e["weight"]], (0, 2, 3, 1))
        w = b.constant(f"{name}/weight", weight, "s8", Quant(w_scales.name, 0, 0))
        bias = b.constant(f"{name}/bias", self.arrays[e["bias"]], "s32")
        eff = b.constant(f"{name}/eff_scale", self.arrays[e["eff_scale"]], "f32")
        pads, stride = tuple(e["padding"]), (e["stride"],) * 2
        attrs = {"strides": stride, "pads": pads * 2, "groups": e["groups"]}
        acc = b.add("ConvInteger", [self.values[e["input"]], w], attrs, name=f"{name}.acc", source=where)
        quant = Quant(_f32(e["y_scale"]), e["y_zero"])
        return b.add("Requantize", [acc, bias, eff], name=name, source=where, quant=quant)

    def add(self, e: Entry) -> Value:
        operands = [self.values[i] for i in e["inputs"]]
        quant = Quant(_f32(e["y_scale"]), e["y_zero"])
        where = f"{self.file}:{e['name']}"
        return self.b.add("QLinearAdd", operands, name=e["name"], source=where, quant=quant)

    def pool(self, e: Entry) -> Value:
        x = self.values[e["input"]]
        where = f"{self.file}:{e['name']}"
        return self.b.add("AveragePool", [x], {"kernel": ()}, name=e["name"], source=where, quant=x.quant)

    def classifier(self, e: Entry) -> Value:
        b, where = self.b, f"{self.file}:{e['name']}"
        scales = self.arrays[e["w_scales"]].astype(np.float64)
        weight = self.arrays[e["weight"]].reshape(e["out_channels"], -1) * scales[:, None]
        bias = self.arrays[e["bias"]] * scales * e["x_scale"]
        real = b.add("DequantizeLinear", [self.values[e["input"]]], name="features", source=where)
        flat = b.add("Reshape", [real], {"shape": (1, weight.shape[1])}, name="features.flat", source=where)
        w = b.constant("classifier/weight", weight.astype(np.float32))
        return b.add(
            "Gemm",
            [flat, w, b.constant("classifier/bias", bias.astype(np.float32))],
            name="logits",
            source=where,
        )


def _f32(x: float) -> float:
    """The float32 nearest to x, as a Python float that prints exactly."""
    return float(np.float32(x))
