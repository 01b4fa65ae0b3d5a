"""One command on a user's own ONNX model and folder of images: a scheme, a report, a trained network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.choose.networks import mobile
from trainlet import api

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def images(folder: Path, each: int = 24) -> Path:
    """Noisy images of three colours, and which colour is on the left."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(each):
            noise = rng.integers(-60, 60, (12, 12, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def run(*args: object) -> str:
    from trainlet.cli.app import app

    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_budget_gives_a_scheme_a_report_and_a_trained_network(tmp_path):
    pytest.importorskip("onnx")
    model = api.export(mobile(1), None, tmp_path / "own.onnx")
    data, budget = images(tmp_path / "images"), 60_000
    out = run(
        "train", model, "--data", data, "--budget", budget, "--epochs", 2, "--batch", 4, "--report",
        tmp_path / "report", "--checkpoint", tmp_path / "state.safetensors",
    )  # fmt: skip
    assert "1/3 contributions: to be measured" in out and "3/3 training" in out
    scheme = tmp_path / "report" / "scheme.json"
    settings = api.Settings(str(scheme), batch=4, classes=3)
    assert api.plan(str(model), settings).ram_bytes <= budget
    page = (tmp_path / "report" / "index.html").read_text()
    assert "What to train of own" in page and "bias-only" in page
    assert (tmp_path / "state.safetensors").exists()
    again = run(
        "search", model, "--data", data, "--budget", budget, "--batch", 4, "--master", "fp32", "--analysis",
        tmp_path / "report" / "analysis.json", "-o", tmp_path / "again.json", "--confirm-epochs", 0, "--json",
    )  # fmt: skip
    assert json.loads(again)["ram_bytes"] <= budget
