"""analyze on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.choose.tasks import dataset
from tests.host.programs import network
from trainlet.cli import main
from trainlet.ir.text import save_graph


@pytest.fixture
def files(tmp_path):
    graph = network("perceptron", True)
    save_graph(graph, tmp_path / "net.tl")
    data = dataset(network("perceptron", True), 60)
    labels = (data.y_train % 3).astype(np.int64)
    np.savez(
        tmp_path / "d.npz",
        x_train=data.x_train.stored,
        y_train=labels,
        x_test=data.x_train.stored,
        y_test=labels,
    )
    return tmp_path


def run(*words: str) -> int:
    import sys

    old, sys.argv = sys.argv, ["trainlet", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = old
    return 0


def test_analyze_writes_the_analysis_and_says_what_it_found(files, capsys):
    words = ("analyze", str(files / "net.tl"), "--data", str(files / "d.npz"), "-o", str(files / "a.json"))
    assert run(*words, "--batch", "8", "--epochs", "1") == 0
    said = capsys.readouterr().out
    raw = json.loads((files / "a.json").read_text())
    assert raw["model"] == "perceptron" and len(raw["layers"]) == 3 and "1" in raw["biases"]
    assert "fc0/weight" in said and "head alone" in said and "a.png" in said and (files / "a.png").exists()
    assert run(*words, "--batch", "8", "--epochs", "1") == 0
    assert "kept from before" in capsys.readouterr().out


def test_too_few_samples_are_an_error_in_one_line(files, capsys):
    code = run(
        "analyze",
        str(files / "net.tl"),
        "--data",
        str(files / "d.npz"),
        "-o",
        str(files / "a.json"),
        "--samples",
        "6",
    )
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and "class" in said


def test_search_without_an_analysis_says_what_to_run(capsys):
    words = ["search", "net.json", "--data", "photos", "--budget", "64KB", "-o", "scheme.json"]
    assert run(*words) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "trainlet analyze net.json --data photos -o analysis.json" in said
    assert "trainlet train net.json --data photos --budget 65536" in said
