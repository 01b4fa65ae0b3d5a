"""Runs commands in this process, on a small network and data made for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.frontends.onnx_models import Net, save
from trainlet.cli.app import app

CLASSES = 3
SHAPE = (3, 8, 8)  # channels first, as the network's user has them


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usage errors without colours and frames that fold words."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """net.onnx: a stem, a depthwise block with a residual, a head "head.weight" for three classes."""
    net = Net(1, *SHAPE)
    weight, bias = net.weight(8, 3, 3, 3, name="stem.weight"), net.const(np.zeros(8), "stem.bias")
    x = net("Relu", net("Conv", "x", weight, bias, strides=[2, 2], pads=[1, 1, 1, 1]))
    weight, bias = net.weight(8, 1, 3, 3, name="dw.weight"), net.const(np.zeros(8), "dw.bias")
    y = net("Conv", x, weight, bias, group=8, pads=[1, 1, 1, 1])
    y = net("Conv", net.relu6(y), net.weight(8, 8, 1, 1, name="pw.weight"), net.const(np.zeros(8), "pw.bias"))
    y = net("Flatten", net("GlobalAveragePool", net("Add", x, y)))
    head = [net.weight(CLASSES, 8, name="head.weight"), net.const(np.zeros(CLASSES), "head.bias")]
    return save(net.model(net("Gemm", y, *head, transB=1)), tmp_path)


def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """f32 (count, *SHAPE) and labels: each class has its own colour."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, count)
    label[:CLASSES] = range(CLASSES)
    x = rng.normal(0, 0.5, (count, *SHAPE))
    x += np.eye(CLASSES)[label][:, :, None, None]
    return x.astype(np.float32), label.astype(np.int64)


def arrays() -> dict[str, np.ndarray]:
    """What data.npz holds."""
    (x_train, y_train), (x_test, y_test) = samples(48, 1), samples(24, 2)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", **arrays())  # type: ignore[arg-type]
    return tmp_path / "data.npz"


def run(*words: object) -> str:
    """stdout of a command that succeeds."""
    result = CliRunner().invoke(app, [str(w) for w in words], prog_name="trainlet")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*words: object) -> Any:
    return json.loads(run(*words, "--json"))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file and folder below."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.fixture
def fails(tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must end with code 1, one clear line, and nothing written; the line."""

    def check(*words: object, code: int = 1) -> str:
        before = tree(tmp_path)
        result = CliRunner().invoke(app, [str(w) for w in words], prog_name="trainlet")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        assert tree(tmp_path) == before, "something was written"
        if code == 1:
            assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
        return str(result.stderr)

    return check
