"""`trainlet analyze`: what each bias, layer and share of channels of a network is worth on a task."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from trainlet.api import load_dataset
from trainlet.choose.contribution import Contributions, data_id, model_id, read
from trainlet.choose.estimate import Record
from trainlet.choose.halving import Halving, Measured
from trainlet.choose.journal import Journal, journal_path
from trainlet.choose.local import LocalPool
from trainlet.choose.structure import layer_infos
from trainlet.choose.task import AnalysisSettings, Task, make_task
from trainlet.choose.trials import Run, Trials
from trainlet.data import Dataset
from trainlet.errors import AnalysisError
from trainlet.frontends import load
from trainlet.ir import Graph
from trainlet.output import check_writable


class Pool(Protocol):
    """Runs trials somewhere; yields each with its record as it ends."""

    def run(self, runs: Sequence[Run]) -> Any: ...


@dataclass(frozen=True)
class AnalysisProgress:
    """`done` of `total` runs of a phase; of them `reused` came from the journal. `record`: what just
    ended."""

    phase: str
    done: int
    total: int
    reused: int
    record: Record | None = None


Watch = Callable[[AnalysisProgress], None]


def analyze(
    model: str | Path | Graph,
    data: str | Path | Dataset,
    output: str | Path,
    settings: AnalysisSettings | None = None,
    *,
    jobs: int = 1,
    on: str = "local",
    watch: Watch = lambda p: None,
) -> Contributions:
    """Measure the contributions of a network's biases and weights on a task, and write them to `output`.

    Runs that a journal beside `output` holds are not made again. `on`: "local" (with `jobs` processes), "ray"
    or "ray://host:port". Raises AnalysisError (too few samples, a journal of another analysis, …).
    """
    graph = model if isinstance(model, Graph) else load(model)
    if isinstance(data, str | Path):
        data = load_dataset(graph, data)
    task, output = make_task(graph, data, settings or AnalysisSettings()), Path(output)
    check_writable(output)
    identity = {"model_id": model_id(graph), "data": data_id(data), "settings": task.settings.of_runs()}
    journal = Journal(journal_path(output), identity)
    folder = output.with_name(f"{output.name}.cache-{_short(identity)}")
    with pool_of(task, folder, jobs, on) as pool:
        measured, seconds = measure_all(task, pool, journal, watch)
        fisher = _fisher(task, folder, measured, journal, watch)
    result = _result(task, identity, measured, seconds, fisher)
    result.write(output)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def pool_of(task: Task, folder: Path, jobs: int, on: str) -> AbstractContextManager[Pool]:
    """Where trials run."""
    if on == "local":
        folder.mkdir(parents=True, exist_ok=True)
        return LocalPool(task, folder, jobs)
    if on == "ray" or on.startswith("ray://"):
        from trainlet.choose.on_ray import RayPool

        return RayPool(task, on, jobs)
    raise AnalysisError(f"cannot run trials on {on!r}: give local, ray or ray://host:port")


def measure_all(task: Task, pool: Pool, journal: Journal, watch: Watch) -> tuple[Measured, dict[str, float]]:
    """All rounds; wall seconds by phase, of this call."""
    seconds: dict[str, float] = {}

    def measure(phase: str, runs: Sequence[Run]) -> Mapping[str, dict[str, Any]]:
        started = time.perf_counter()
        todo = [run for run in dict.fromkeys(runs) if run.key not in journal.records]
        total, reused = len(set(runs)), len(set(runs)) - len(todo)
        watch(AnalysisProgress(phase, reused, total, reused))
        for done, (run, record) in enumerate(pool.run(todo), reused + 1):
            journal.add(run.key, record)
            watch(AnalysisProgress(phase, done, total, reused, record))
        seconds[phase] = round(seconds.get(phase, 0.0) + time.perf_counter() - started, 1)
        return journal.records

    halving = Halving(layer_infos(task.graph), task.settings, len(task.validate), task.classes, measure)
    return halving.all(), seconds


def _fisher(
    task: Task, folder: Path, measured: Measured, journal: Journal, watch: Watch
) -> Mapping[str, Any]:
    from trainlet.choose.fisher import fisher

    key = f"fisher samples={task.settings.fisher_samples} lr={measured.head_lr:.6g}"
    if key not in journal.records:
        watch(AnalysisProgress("Fisher information", 0, 1, 0))
        head, _ = Trials(task, folder).head(task.settings.seed, measured.head_lr)
        journal.add(key, fisher(task, head))
    watch(AnalysisProgress("Fisher information", 1, 1, 0))
    return journal.records[key]


def _result(
    task: Task,
    identity: Mapping[str, Any],
    m: Measured,
    seconds: Mapping[str, float],
    fisher: Mapping[str, Any],
) -> Contributions:
    import numpy as np

    from trainlet.choose.correlation import correlation

    settings = {
        **task.settings.to_json(),
        "lr": m.lr,
        "head_lr": m.head_lr,
        "base_biases": m.base_biases,
        "lr_rule": "least validation loss: the head alone; the last half of the biases, alone and beside "
        "each of two whole weights; halved where a trial diverges",
        "gain": {"slope": m.scale.slope, "share_of_accuracy": m.scale.share},
        "fit_samples": len(task.fit),
        "validation_samples": len(task.validate),
        "classes": task.classes,
        "runs": m.runs,
        "cpu_seconds": round(m.cpu_seconds, 1),
        "kept": m.kept,
        "seconds": dict(seconds),
    }
    result = Contributions(
        task.graph.name,
        identity["model_id"],
        identity["data"],
        settings,
        m.head_accuracy,
        m.biases,
        m.weights,
        m.bases,
        layer_infos(task.graph),
        {k: np.array(v) for k, v in fisher["weights"].items()},
        fisher["biases"],
    )
    return replace(result, correlation=correlation(result))


def _short(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]


__all__ = ["AnalysisProgress", "AnalysisSettings", "Contributions", "analyze", "read"]
