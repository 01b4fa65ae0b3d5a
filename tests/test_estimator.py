"""The classifier keeps scikit-learn's conventions, and works inside its pipelines and validation."""

from __future__ import annotations

import numpy as np
import pytest

from tests.host.programs import NETWORKS
from trainlet import TrainletClassifier
from trainlet.errors import DataError

sklearn = pytest.importorskip("sklearn")
GRAPH = NETWORKS["perceptron"]()  # (6, 5) samples, 3 outputs


def blobs(classes: int = 3, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(0, 2, (classes, 6, 5)), np.arange(count) % classes
    names = np.array(["ash", "birch", "cedar", "elm"])[labels]
    return (centres[labels] + rng.normal(0, 0.3, (count, 6, 5))).astype(np.float32), names


def classifier(**changes: object) -> TrainletClassifier:
    return TrainletClassifier(GRAPH, **{"epochs": 8, "lr": 0.05, "batch": 4, **changes})  # type: ignore[arg-type]


def test_it_learns_labels_of_any_kind() -> None:
    X, y = blobs()
    c = classifier().fit(X, y)
    assert c.score(X, y) > 0.9 and c.classes_.tolist() == ["ash", "birch", "cedar"]
    p = c.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert np.array_equal(c.classes_[p.argmax(1)], c.predict(X))


def test_another_number_of_classes_gets_a_new_head() -> None:
    X, y = blobs(4)
    c = classifier().fit(X, y)
    assert c.program_.classes == 4 and c.score(X, y) > 0.8


def test_fit_starts_anew_and_partial_fit_goes_on() -> None:
    X, y = blobs()
    c = classifier(epochs=2)
    first = c.fit(X, y).predict_proba(X)
    assert np.array_equal(c.fit(X, y).predict_proba(X), first)
    d = classifier()
    with pytest.raises(DataError, match="classes="):
        d.partial_fit(X[:7], y[:7])
    d.partial_fit(X[:7], y[:7], classes=np.unique(y))  # 7 do not fill two batches of 4
    before = d.score(X, y)
    for _ in range(6):
        d.partial_fit(X, y)
    assert d.score(X, y) > max(0.9, before - 0.01)


def test_parameters_are_those_of_the_constructor() -> None:
    from sklearn.base import clone

    c = classifier(scheme="head")
    assert c.get_params()["scheme"] == "head" and clone(c).get_params()["lr"] == 0.05
    assert c.set_params(lr=0.5).lr == 0.5
    with pytest.raises(ValueError, match="no parameter 'depth'"):
        c.set_params(depth=3)


def test_it_works_in_a_pipeline_under_cross_validation() -> None:
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    X, y = blobs()
    flat = X.reshape(len(X), -1).astype(np.float64)
    pipe = make_pipeline(StandardScaler(), classifier(input_shape=(6, 5)))
    assert cross_val_score(pipe, flat, y, cv=3).mean() > 0.9
    assert cross_val_score(classifier(), X, y, cv=2).mean() > 0.9
    search = GridSearchCV(classifier(epochs=4), {"lr": [1e-6, 0.05]}, cv=2).fit(X, y)
    assert search.best_params_ == {"lr": 0.05}


def test_what_cannot_be_is_refused_in_words() -> None:
    X, y = blobs()
    with pytest.raises(DataError, match="call fit first"):
        classifier().predict(X)
    with pytest.raises(DataError, match="at least 2 classes"):
        classifier().fit(X, np.full(len(X), "ash"))
    with pytest.raises(DataError, match="'oak' is none of the classes"):
        classifier(epochs=1).fit(X, y).partial_fit(X[:4], ["oak"] * 4)
    with pytest.raises(DataError, match="do not fit input_shape"):
        classifier(input_shape=(7, 5)).fit(X.reshape(60, -1), y)
