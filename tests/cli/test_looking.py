"""inspect, schemes, plan, and what the command line itself answers."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import trainlet
from tests.cli.conftest import CLASSES, run, run_json
from tests.shared_files import shared

ROOT = Path(__file__).resolve().parents[2]
SCHEME = '{"weights": {"pw.weight": {"share": 0.5}}, "biases": ["pw.bias"]}'


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version").split() == ["trainlet", trainlet.__version__]
    assert trainlet.__version__ == project["version"]


@pytest.mark.parametrize("line", [
    "", "nonsense", "plan", "plan net.onnx --batch many", "plan m --budget 3XB", "plan m --master int4",
    "train m --data d --epochs 1",
])  # fmt: skip
def test_wrong_usage_exits_with_2(line: str, fails: Callable[..., str]) -> None:
    fails(*line.split(), code=2)


def test_inspect_lists_the_layers_under_the_users_names(model: Path) -> None:
    text = run("inspect", model)
    for word in ("net: x f32 1x8x8x3", "stem.weight", "dw.bias", "depthwise", "head.weight"):
        assert word in text
    layers = run_json("inspect", model)["layers"]
    assert [x["weight"] for x in layers] == ["stem.weight", "dw.weight", "pw.weight", "head.weight"]
    assert [x["head"] for x in layers] == [False, False, False, True]


def test_every_scheme_that_is_listed_fits(model: Path) -> None:
    rows = run_json("schemes", model)
    assert [r["name"] for r in rows][:2] == ["head", "bias-only:1"]
    assert "last:3" in run("schemes", model)
    for row in rows:
        assert run_json("plan", model, "--scheme", row["name"])["scheme"] == row["name"]


@pytest.mark.shared
def test_published_schemes_are_listed_for_their_network() -> None:
    names = [r["name"] for r in run_json("schemes", shared("reference/models/mcunet-5fps.json"))]
    assert "mcunet-5fps:49kb" in names
    assert not [n for n in names if n.startswith("mbv2")]


def test_plan_says_what_is_promised(model: Path) -> None:
    report = run_json("plan", model, "--scheme", "full", "--batch", 4)
    ram = report["ram_bytes"]
    assert set(ram) == {"arena", "state", "scratch", "total"}
    assert ram["total"] == ram["arena"] + ram["state"] + ram["scratch"]
    assert report["flash_bytes"] > 0 and 0 < report["lower_bound_bytes"] <= ram["arena"]
    assert set(report["macs"]) == {"forward", "backward"}
    assert report["peak_live"][0]["bytes"] > 0 and report["batch"] == 4
    text = run("plan", model, "--scheme", "full", "--batch", 4)
    assert f"{ram['total']:,}" in text and report["peak_live"][0]["name"] in text


def test_a_scheme_file_names_parameters(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(SCHEME)
    report = run_json("plan", model, "--scheme", tmp_path / "mine.json")
    assert report["scheme"] == "mine"
    assert report["ram_bytes"]["state"] == 4 * (8 * 4 + 8)


def test_classes_make_a_new_head(model: Path) -> None:
    states = [run_json("plan", model, "--classes", k)["ram_bytes"]["state"] for k in (CLASSES, CLASSES + 7)]
    assert states[1] - states[0] == 7 * 9 * 4


@pytest.mark.parametrize("text,fits", [("1MB", True), ("1048576", True), ("0.5 kB", False), ("512", False)])
def test_a_budget_is_kept_or_refused(text: str, fits: bool, model: Path, fails: Callable[..., str]) -> None:
    words = ("plan", model, "--scheme", "full", "--budget", text)
    if fits:
        run(*words)
    else:
        message = fails(*words)
        assert "the budget is 512" in message and "The peak is in" in message


def test_the_module_runs_as_a_program(model: Path) -> None:
    words = [sys.executable, "-m", "trainlet", "plan", str(model), "--scheme", "last:9"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: scheme 'last:9'") and done.stderr.count("\n") == 1
