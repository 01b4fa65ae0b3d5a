"""convert: a network as it is imported, BatchNormalizations folded or kept for training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import run
from tests.frontends.onnx_models import Net, save
from trainlet.api import Settings, build, load
from trainlet.ir import Graph, interpret
from trainlet.scheme.layers import norms


@pytest.fixture
def normalized(tmp_path: Path) -> Path:
    net = Net(1, 3, 8, 8)
    y = net.conv_bn("x", (6, 3, 3, 3), "relu", pads=[1] * 4)
    y = net("Flatten", net("GlobalAveragePool", y))
    y = net("Gemm", y, net.weight(4, 6, name="head.weight"), net.weight(4, name="head.bias"), transB=1)
    return save(net.model(y), tmp_path)


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def test_batch_normalizations_are_folded_or_kept(normalized: Path, tmp_path: Path) -> None:
    assert "wrote" in run("convert", normalized, "-o", tmp_path / "folded.tl")
    run("convert", normalized, "--norm", "batch", "-o", tmp_path / "batch.tl")
    folded, batch = load(tmp_path / "folded.tl"), load(tmp_path / "batch.tl")
    assert "BatchNormalization" not in ops(folded) and ops(batch).count("BatchNormalization") == 1
    x = np.random.default_rng(0).normal(0, 1, (1, 8, 8, 3)).astype(np.float32)
    y, z = (interpret(g, {g.inputs[0].name: x}).outputs[0] for g in (folded, batch))
    np.testing.assert_allclose(y, z, atol=1e-5)


def test_a_converted_network_trains_its_statistics(normalized: Path, tmp_path: Path) -> None:
    run("convert", normalized, "--norm", "batch", "-o", tmp_path / "batch.tl")
    graph = load(tmp_path / "batch.tl")
    (layer,) = norms(graph)
    mean = layer.node.inputs[3]
    assert mean is not None
    program = build(graph, Settings(scheme="full", batch=3))
    rng = np.random.default_rng(1)
    x = rng.normal(2, 1, (3, 8, 8, 3)).astype(np.float32)
    before = program.tensor(f"{mean.name}.trained").copy()
    program.step(x, np.arange(3, dtype=np.int32), 0.0)
    after = program.tensor(f"{mean.name}.trained")
    moved = (after - 0.9 * before) / 0.1  # ONNX's momentum is 0.9 where nothing is said
    conv = next(n for n in graph.nodes if n.op == "Conv")
    weight = graph.constants[conv.inputs[1].name].data  # type: ignore[union-attr]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    expected = np.einsum("nyxcij,oijc->nyxo", windows, weight).mean((0, 1, 2))
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-3)


def test_another_norm_is_no_choice(normalized: Path, fails: Callable[..., str]) -> None:
    fails("convert", normalized, "--norm", "instance", "-o", "x.tl", code=2)
