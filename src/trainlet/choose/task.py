"""What is measured on: a network with its new head, and training data split into a part to fit and one to
validate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainlet.api import Settings, classes_of, prepare
from trainlet.choose.structure import layer_infos
from trainlet.data import Dataset
from trainlet.errors import AnalysisError, SchemeError
from trainlet.ir import Graph
from trainlet.passes.rebatch import rebatch
from trainlet.scheme import replace_head

FEWEST = 4  # samples of a class, of which one at least goes to the validation part


@dataclass(frozen=True)
class AnalysisSettings:
    """How contributions are measured.

    Rungs of successive halving: (epochs, seeds) of a trial, and the share of the trials that goes on to the
    next. Trials are whole runs with warm-up and cosine, as `trainlet train` does them. `base_biases`: how
    many of the last biases are trained in every trial of a weight. `lr`, `head_lr`: None to search.
    """

    master: str = "fp32"
    batch: int = 32
    rungs: tuple[tuple[int, int], ...] = ((1, 1), (4, 1), (4, 2))
    keep: float = 0.3
    shares: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    validation_share: float = 0.3
    samples: int | None = None
    depth: int | None = None
    base_biases: int = 0
    lr: float | None = None
    head_lr: float | None = None
    seed: int = 0
    fisher_samples: int = 512

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rungs": [list(r) for r in self.rungs], "shares": list(self.shares)}

    def of_runs(self) -> dict[str, Any]:
        """Those that change what a run gives; the others only say which runs are made."""
        names = ("master", "batch", "validation_share", "samples", "seed")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Task:
    """A network and the data of one analysis. `fit`, `validate`: rows of the training part, each sorted."""

    graph: Graph
    data: Dataset
    classes: int
    fit: np.ndarray
    validate: np.ndarray
    settings: AnalysisSettings

    @property
    def rows(self) -> np.ndarray:
        """All rows that are used: those to fit, then those to validate."""
        return np.concatenate([self.fit, self.validate])

    @property
    def labels(self) -> np.ndarray:
        """Labels of `rows`."""
        return self.data.y_train[self.rows].astype(np.int32)

    def network(self, seed: int) -> Graph:
        """The network with a new head drawn from `seed`, for one sample."""
        return rebatch(replace_head(self.graph, self.classes, seed), 1)


def make_task(graph: Graph, data: Dataset, settings: AnalysisSettings) -> Task:
    """Raises AnalysisError where the data is no classification with enough samples of two or more classes."""
    _check(settings)
    if data.y_train.dtype.kind == "f":
        raise AnalysisError("the data has real-valued targets: contributions are measured on classes only")
    used = np.arange(min(settings.samples or len(data.y_train), len(data.y_train)))
    labels = data.y_train[used]
    counts = np.unique(labels, return_counts=True)
    if len(counts[0]) < 2:
        raise AnalysisError(
            f"the {len(used)} training samples are all of one class: give samples of at least two classes"
        )
    if counts[1].min() < FEWEST:
        rare = counts[0][counts[1].argmin()]
        name = data.class_names[rare] if len(data.class_names) > rare else str(rare)
        raise AnalysisError(
            f"class {name} has {counts[1].min()} training samples: contributions need {FEWEST} of each "
            "class at least, to fit on some and validate on the others"
        )
    fit, validate = split(labels, settings.validation_share, settings.seed)
    if len(fit) < settings.batch:
        raise AnalysisError(
            f"{len(fit)} samples remain to fit ({len(validate)} validate), fewer than the batch of "
            f"{settings.batch}: give more samples, or a smaller --batch"
        )
    try:
        prepare(graph, Settings("head", settings.master, batch=1, classes=classes_of(data)))
    except SchemeError as error:
        raise AnalysisError(f"{graph.name} cannot be analyzed: {error}") from None
    if len(layer_infos(graph)) < 2:
        raise AnalysisError(f"{graph.name} has one layer only: there is nothing to choose")
    return Task(graph, data, classes_of(data), used[fit], used[validate], settings)


def _check(s: AnalysisSettings) -> None:
    if not s.rungs or any(e < 1 or n < 1 for e, n in s.rungs) or list(s.rungs) != sorted(s.rungs):
        raise AnalysisError(f"rungs {s.rungs}: give (epochs, seeds) that grow from rung to rung")
    if not 0 < s.validation_share < 1 or not 0 < s.keep <= 1:
        raise AnalysisError("validation_share must lie between 0 and 1, keep in (0, 1]")
    if not s.shares or not all(0 < r <= 1 for r in s.shares):
        raise AnalysisError(f"shares {s.shares} must lie in (0, 1]")


def split(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit and rows to validate, `share` of each class (one at least of each kind), drawn from
    `seed`."""
    rng, held = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
