"""Trials on a Ray cluster. Ray runs a trial again where the worker that had it died; results are the same
anywhere.

Every machine of the cluster needs trainlet and a C compiler. The workers of a machine
share the activations at cuts, in a folder below its temporary one.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import trainlet
from trainlet.choose.local import ATTEMPTS
from trainlet.choose.task import Task
from trainlet.choose.trials import Run, Trials
from trainlet.errors import AnalysisError, TrainletError

_tasks: dict[str, Any] = {}  # in a worker: the task it is at


class RayPool:
    """A local cluster of `jobs` workers (`on` = "ray"), or one that runs already ("ray://host:port")."""

    def __init__(self, task: Task, on: str, jobs: int) -> None:
        try:
            import ray
        except ImportError:
            raise AnalysisError("trials on a Ray cluster need a package: pip install 'ray>=2.9'") from None
        self._ray, self._started = ray, not ray.is_initialized()
        if self._started:
            self._connect(on, jobs)
        self._task = ray.put(task)
        # max_calls=0: a worker lives on, and with it its task. A trial is a pure function: it can run again.
        self._run = ray.remote(num_cpus=1, max_retries=ATTEMPTS, max_calls=0)(run_there)

    def _connect(self, on: str, jobs: int) -> None:
        if on == "ray":
            source = str(Path(trainlet.__file__).parents[1])
            self._ray.init(
                num_cpus=jobs,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": {"PYTHONPATH": _joined(source)}},
            )
            return
        try:
            self._ray.init(address=on, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise AnalysisError(f"no Ray cluster answers at {on}: {error}") from None

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._started:
            self._ray.shutdown()
        shutil.rmtree(_folder(self._task.hex()), ignore_errors=True)

    def run(self, runs: Sequence[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Each run with its record, as they end. Raises AnalysisError where a run fails or keeps dying."""
        key = self._task.hex()
        waiting = {self._run.remote(self._task, key, run): run for run in runs}
        while waiting:
            ended, _ = self._ray.wait(list(waiting))
            for reference in ended:
                run = waiting.pop(reference)
                try:
                    answer = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    raise AnalysisError(f"trial {run.key} failed on the cluster: {error}") from None
                if "error" in answer:
                    raise AnalysisError(f"trial {run.key}: {answer['error']}")
                yield run, answer["record"]


def _joined(source: str) -> str:
    return os.pathsep.join(p for p in (source, os.environ.get("PYTHONPATH", "")) if p)


def _folder(key: str) -> Path:
    """Where the workers of a machine share the activations at cuts."""
    return Path(tempfile.gettempdir()) / f"trainlet-ray-{key}"


def run_there(task: Task, key: str, run: Run) -> dict[str, Any]:
    """In a worker: one run of the task that `key` names."""
    if key not in _tasks:
        _tasks.clear()
        _tasks[key] = Trials(task, _folder(key))
    try:
        return {"record": _tasks[key](run)}
    except TrainletError as error:
        return {"error": str(error)}
