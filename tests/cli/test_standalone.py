"""compile --target and pack make a command line program and the data it reads; --budget says what it did."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import run, run_json


@pytest.mark.slow
def test_a_packed_data_set_trains_the_program(model: Path, data: Path, tmp_path: Path) -> None:
    said = run(
        "compile", model, "--scheme", "last:2", "--batch", 4, "--target", "native", "-o", tmp_path / "out"
    )
    assert "out/net" in said and "libnet.a" in said
    assert "48 + 24 samples" in run("pack", model, "--data", data, "-o", tmp_path / "d.bin")
    words = [str(tmp_path / "out" / "net"), "train", str(tmp_path / "d.bin"), "--epochs", "8", "--lr", "0.05"]
    report = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = [float(x) for x in re.findall(r"test ([\d.]+)", report)]
    assert len(found) == 8 and found[-1] > 0.6
    assert re.search(r"peak resident memory \d+ KB", report)


def test_a_budget_that_splits_the_batch_is_reported_and_trains(model: Path, data: Path) -> None:
    words = ("--scheme", "full", "--batch", 8)
    whole = run_json("plan", model, *words)["ram_bytes"]["total"]
    budget = whole * 2 // 3
    report = run_json("plan", model, *words, "--budget", budget)
    assert report["ram_bytes"]["total"] <= budget and report["memory_choice"]["whole_bytes"] == whole
    assert "fewer than the whole batch takes" in run("plan", model, *words, "--budget", budget)
    run("train", model, "--data", data, *words, "--budget", budget, "--epochs", 1, "--lr", 0.05)


def test_an_unknown_target_is_a_usage_error(model: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "toaster" in fails("compile", model, "--target", "toaster", "-o", tmp_path / "out", code=2)
