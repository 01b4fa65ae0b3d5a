"""The whole analysis: workers, interruptions, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.choose.tasks import QUICK, dataset, task
from tests.choose.test_trials import same
from tests.host.programs import network
from trainlet.choose.analyze import analyze
from trainlet.choose.contribution import read
from trainlet.choose.journal import Journal, journal_path
from trainlet.choose.local import LocalPool
from trainlet.choose.trials import Run, Trial
from trainlet.data import Dataset
from trainlet.errors import AnalysisError

RUNS = [Run(Trial(k), 1, 0, 0.02, 0.1) for k in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    graph = network("residual", True)
    path = tmp_path_factory.mktemp("analysis") / "a.json"
    found = analyze(graph, dataset(graph), path, QUICK)
    return graph, path, found


def test_every_bias_count_and_weight_share_has_an_estimate(analysis):
    graph, path, found = analysis
    assert sorted(found.biases) == list(range(1, 9))
    names = {x.weight: x.channels for x in found.layers if x.conv_index is not None}
    expected = {(w, s) for w, c in names.items() for s in QUICK.shares if int(c * s) > 0}
    assert set(found.weights) == expected
    assert all(e.low <= e.gain <= e.high for e in (*found.weights.values(), *found.biases.values()))
    assert all(found.weights[w, 1.0].seeds for w in names), "every weight was trained whole at least once"
    assert set(found.bases.values()) == {0}, "beside the head alone"
    assert read(path, graph, dataset(graph)).to_json() == found.to_json()


def test_nothing_is_run_again_and_a_stopped_analysis_ends_the_same(analysis, tmp_path):
    graph, path, found = analysis
    output = tmp_path / "b.json"
    lines = journal_path(path).read_bytes().splitlines(keepends=True)
    journal_path(output).write_bytes(b"".join(lines[:12]) + lines[12][:40])  # kill -9 in the middle of a line
    again = []
    resumed = analyze(graph, dataset(graph), output, QUICK, watch=lambda p: again.append(p.record))
    ran = [r["run"] for r in again if r]
    kept = {json.loads(line)["key"] for line in lines[1:12]}
    assert not kept & set(ran) and len(ran) == len(set(ran)) == len(lines) - 12 - 1  # Fisher is no run
    assert resumed.weights == found.weights and resumed.biases == found.biases


def test_a_journal_of_other_settings_is_refused_by_name(analysis):
    graph, path, _ = analysis
    with pytest.raises(AnalysisError, match="other master"):
        analyze(graph, dataset(graph), path, replace(QUICK, master="nearest"))
    with pytest.raises(AnalysisError, match="other training data"):
        analyze(graph, dataset(graph, seed=5), path, QUICK)


def test_results_do_not_depend_on_the_number_of_workers_nor_on_their_deaths(tmp_path):
    t = task()
    with LocalPool(t, tmp_path / "one", 1) as pool:
        (tmp_path / "one").mkdir(exist_ok=True)
        alone = dict(pool.run(RUNS))
    with LocalPool(t, _made(tmp_path / "two"), 2) as pool:
        found = {}
        for run, record in pool.run(RUNS):
            found[run] = record
            if len(found) == 1:  # the other one is at a trial now, or about to be given one
                victim = next(w for w in pool._workers if w.run not in found)
                os.kill(victim.process.pid, signal.SIGKILL)
    assert set(found) == set(RUNS)
    assert all(same(found[r], alone[r]) for r in RUNS)


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.slow
def test_a_killed_analysis_goes_on_where_it_was(tmp_path):
    code = (
        "import sys; from tests.choose.tasks import *; from tests.host.programs import network\n"
        "from trainlet.choose.analyze import analyze\n"
        "g = network('residual', True); analyze(g, dataset(g), sys.argv[1], QUICK, jobs=2)"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    output, command = tmp_path / "c.json", [sys.executable, "-c", code, str(tmp_path / "c.json")]
    process = subprocess.Popen(command, env=env, cwd=root)
    deadline = time.monotonic() + 120
    while not (journal_path(output).exists() and len(journal_path(output).read_bytes().splitlines()) > 5):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = [json.loads(x)["key"] for x in journal_path(output).read_bytes().splitlines()[1:-1]]
    subprocess.run(command, env=env, cwd=root, check=True, timeout=300)
    keys = [json.loads(line)["key"] for line in journal_path(output).read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) and keys[: len(before)] == before and output.exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: replace(d, y_train=np.zeros_like(d.y_train)), "all of one class"),
        (
            lambda d: replace(d, y_train=np.where(np.arange(len(d.y_train)) < 2, 1, 0).astype(np.int32)),
            "2 training",
        ),
        (lambda d: replace(d, y_train=d.y_train.astype(np.float32)), "real-valued"),
        (
            lambda d: Dataset(_first(d.x_train, 10), d.y_train[:10] % 2, d.x_test, d.y_test % 2, (), ""),
            "batch of 8",
        ),
    ],
)
def test_data_that_is_not_enough_is_refused_in_words(tmp_path, change, message):
    graph = network("residual", True)
    with pytest.raises(AnalysisError, match=message):
        analyze(graph, change(dataset(graph)), tmp_path / "a.json", QUICK)


def _first(samples, count):
    from trainlet.data import Samples

    return Samples(samples.stored[:count], samples.transform)


def test_the_journal_keeps_whole_lines_only(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path, {"model_id": "a", "settings": {"batch": 8}}).add("k", {"v": 1})
    with path.open("ab") as file:
        file.write(b'{"key": "half')
    again = Journal(path, {"model_id": "a", "settings": {"batch": 8}})
    assert again.records == {"k": {"v": 1}}
    again.add("l", {"v": 2})
    assert set(Journal(path, {"model_id": "a", "settings": {"batch": 8}}).records) == {"k", "l"}
    with pytest.raises(AnalysisError, match="other network, batch"):
        Journal(path, {"model_id": "b", "settings": {"batch": 4}})
