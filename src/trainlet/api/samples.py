"""Data, checked against the network that takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainlet.api.settings import Settings
from trainlet.errors import DataError
from trainlet.ir import Graph

if TYPE_CHECKING:
    from trainlet.data import Dataset


def load_dataset(
    model: Graph, path: str | Path, loss: str | None = "softmax-cross-entropy", classes: int | None = None
) -> Dataset:
    """The data in `path`, checked against the network's input and the loss (None: whatever the labels are).

    Class labels define the number of classes where `classes` does not. Raises DataError.
    """
    from trainlet.data import load_data

    classify = loss == "softmax-cross-entropy"
    data = load_data(path, input=model.inputs[0], classes=classes if classify else None)
    return check_targets(data, path, loss, model.outputs[0].shape[-1])


def check_targets(data: Dataset, path: str | Path, loss: str | None, outputs: int) -> Dataset:
    """The data with its targets, if a regression, as (M, outputs)."""
    real = data.y_train.dtype.kind == "f"
    if loss is not None and real == (loss == "softmax-cross-entropy"):
        kind = "real-valued targets" if real else "class labels"
        raise DataError(f"{path} holds {kind}; they do not go with the loss {loss}")
    if not real:
        return data
    for part, y in (("y_train", data.y_train), ("y_test", data.y_test)):
        if y.size != len(y) * outputs:
            raise DataError(f"{part} in {path} has shape {y.shape}, the network gives {outputs} numbers each")
    train, test = (y.reshape(-1, outputs) for y in (data.y_train, data.y_test))
    return replace(data, y_train=train, y_test=test)


def classes_of(data: Dataset) -> int:
    """Number of classes of a data set."""
    return len(data.class_names) or int(max(data.y_train.max(), data.y_test.max())) + 1


def fit_settings(graph: Graph, data: Dataset, settings: Settings) -> Settings:
    """Settings with a new head where the data has another number of classes than the network."""
    if settings.classes is None and settings.loss == "softmax-cross-entropy":
        classes = classes_of(data)
        if classes != graph.outputs[0].shape[-1]:
            return replace(settings, classes=classes)
    return settings
