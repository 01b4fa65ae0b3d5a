"""Networks people have as torch.nn.Module: their outputs, gradients in float64, and state_dicts."""

from __future__ import annotations

import pytest

from benchmarks.torch_models import WORKLOADS, mobilenet_v2, resnet
from tests.frontends.torch_models import check
from tests.train.pytorch import torch
from trainlet.scheme import select

nn = torch.nn


def test_a_sequential_of_everything_plain() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.Hardswish(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    graph = check(module, (1, 3, 12, 12))
    assert "Transpose" not in {n.op for n in graph.nodes}
    assert {"0.weight", "0.bias", "4.weight", "8.weight", "8.bias"} <= set(graph.constants)


@pytest.mark.slow
def test_mobilenet_v2_of_transformers() -> None:
    graph = check(mobilenet_v2(0, size=32), (1, 3, 32, 32))
    assert {n.op for n in graph.nodes} == {"Conv", "Clip", "Add", "AveragePool", "Reshape", "Gemm"}
    chosen = select(WORKLOADS["w1"].sparse(graph), graph)
    assert len(chosen.weights) == 7 and len(chosen.biases) == 21


@pytest.mark.slow
def test_resnet_18_of_transformers() -> None:
    graph = check(resnet(0, 18, classes=10), (1, 3, 32, 32))
    assert {n.op for n in graph.nodes} == {"Conv", "Clip", "MaxPool", "Add", "AveragePool", "Reshape", "Gemm"}
    chosen = select(WORKLOADS["w2"].sparse(graph), graph)
    assert len(chosen.weights) == 5 and len(chosen.biases) == 11
