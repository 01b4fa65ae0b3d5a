"""A published network, taken back to float and quantized anew, agrees with itself on photographs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.quantize.networks import run, snr_db
from tests.shared_files import shared
from trainlet.data import load_data
from trainlet.ir import Graph, GraphBuilder
from trainlet.quantize import quantize, quantize_samples

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def float_network(name: str) -> Graph:
    """The reference network with real weights, each saturation as a Clip."""
    nodes = json.loads(shared(f"reference/models/{name}.json").read_text())["nodes"]
    held = np.load(shared(f"reference/models/{name}.npz"))
    out = GraphBuilder(name)
    values = {"input": out.input("input", "f32", (1, 128, 128, 3))}
    for node in nodes:
        x = node["name"]
        if node["op"] == "global_avgpool":
            values[x] = out.add("AveragePool", [values[node["input"]]], {"kernel": ()}, name=x)
            continue
        if node["op"] == "add":
            y = out.add("Add", [values[i] for i in node["inputs"]], name=f"{x}/sum", source=x)
        else:
            scales = held[f"{x}/w_scales"].astype(np.float64)
            weight = held[f"{x}/weight"].transpose(0, 2, 3, 1) * scales[:, None, None, None]
            w = out.constant(f"{x}/weight", weight)
            b = out.constant(f"{x}/bias", held[f"{x}/bias"] * scales * node["x_scale"])
            attrs = {
                "strides": (node["stride"],) * 2,
                "pads": tuple(node["padding"]) * 2,
                "groups": node["groups"],
            }
            y = out.add("Conv", [values[node["input"]], w, b], attrs, name=f"{x}/conv", source=x)
        lo, hi = ((q - node["y_zero"]) * node["y_scale"] for q in (-128, 127))
        values[x] = out.add("Clip", [y], {"lo": lo, "hi": hi}, name=x, source=x)
    return out.build([values[nodes[-1]["name"]]])


def test_quantized_reference_network_names_the_same_classes() -> None:
    graph = float_network("mcunet-5fps")
    photographs = load_data(
        shared("data/caltech101/caltech101_128.zip"), input=graph.inputs[0], classes=101, mean=0.5, std=0.5
    )
    rows = np.random.default_rng(0).permutation(len(photographs.x_train))
    seen, fresh = photographs.x_train[rows[:64]], photographs.x_train[rows[200:248]]
    small = quantize(graph, seen, head="int8")
    wanted, got = run(graph, fresh), run(small, quantize_samples(small, fresh))
    assert snr_db(wanted, got) > 18
    assert (wanted.argmax(-1) == got.argmax(-1)).mean() >= 0.8  # of 1,000 classes
