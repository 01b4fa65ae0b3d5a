"""Trials on a real local Ray cluster of two workers, one of which is killed at its trial."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.choose.tasks import task
from tests.choose.test_trials import same
from trainlet.choose.on_ray import RayPool
from trainlet.choose.trials import Run, Trial, Trials
from trainlet.errors import AnalysisError

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds the worker to kill in /proc")


@pytest.mark.slow
def test_a_killed_worker_costs_its_trial_only_and_results_are_those_of_one_process(tmp_path):
    runs = [Run(Trial(k), 3, 0, 0.02, 0.1) for k in (8, 7, 6, 5)]
    t = task(count=400)
    with RayPool(t, "ray", 2) as pool, ThreadPoolExecutor(1) as aside:
        ended = threading.Event()
        killed = aside.submit(_kill_one, ended)
        try:
            found = dict(pool.run(runs))
        finally:
            ended.set()
        assert killed.result(), "no worker was found at a trial"
    here = Trials(t, tmp_path)
    assert set(found) == set(runs) and all(same(found[run], here(run)) for run in runs)


def _kill_one(ended: threading.Event) -> bool:
    """Kill a process of our cluster that is at a trial; Ray names it after the function it runs."""
    while not ended.is_set():
        for pid in _descendants(os.getpid()):
            if _read(pid, "cmdline").startswith("ray::run_there"):
                os.kill(pid, signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def _descendants(root: int) -> list[int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (stat := _read(int(folder.name), "stat")):
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it is gone
        return ""


@pytest.mark.slow  # Ray's client waits half a minute before it gives up
def test_no_cluster_there_is_said_in_words():
    with pytest.raises(AnalysisError, match="no Ray cluster answers"):
        RayPool(task(), "ray://127.0.0.1:1", 1)
