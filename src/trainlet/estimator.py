"""A classifier in the manner of scikit-learn, which it works with and does not need."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.errors import DataError

if TYPE_CHECKING:
    from trainlet.compiled import CompiledProgram


class TrainletClassifier:
    """Adapts a pretrained network to labelled samples.

    model, scheme, batch, threads, optimizer, budget, mean, std, seed: as in `trainlet.compile`; epochs and
    lr as in `CompiledProgram.fit`. input_shape: shape of one sample, where X has rows of features (N, F)
    instead of samples (N, *shape). X of another float type becomes float32; uint8 are pixels. Labels y are of
    any kind. Where their number differs from the network's outputs, the network gets a new head.

    After `fit`: `classes_`, `n_features_in_`, `program_` (the CompiledProgram), `history_` (its FitResult).
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        model: Any = None,
        *,
        scheme: Any = "full",
        epochs: int = 5,
        lr: float | None = None,
        batch: int = 8,
        threads: int = 1,
        optimizer: str = "sgd",
        budget: int | str | None = None,
        input_shape: tuple[int, ...] | None = None,
        mean: Any = None,
        std: Any = None,
        augment: bool = False,
        seed: int = 0,
    ) -> None:
        self.model, self.scheme, self.epochs, self.lr, self.batch = model, scheme, epochs, lr, batch
        self.threads, self.optimizer, self.budget, self.input_shape = threads, optimizer, budget, input_shape
        self.mean, self.std, self.augment, self.seed = mean, std, augment, seed

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> TrainletClassifier:
        """Change the constructor's arguments. Raises ValueError for a name that is none of them."""
        for name, value in params.items():
            if name not in self._parameter_names():
                raise ValueError(f"no parameter {name!r}: there are {', '.join(self._parameter_names())}")
            setattr(self, name, value)
        return self

    def fit(self, X: Any, y: Any) -> TrainletClassifier:  # noqa: N803  (scikit-learn's name)
        """Compile the network and train it from the weights it came with."""
        samples, labels = self._samples(X), np.asarray(y)
        self._start(samples, np.unique(labels), min(self.batch, len(samples)))
        data = (samples, self._numbers(labels))
        self.history_ = self.program_.fit(data, self.epochs, self.lr, augment=self.augment, seed=self.seed)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> TrainletClassifier:  # noqa: N803
        """One pass over a block of samples with a constant rate, from where training stands.

        classes: all labels there will ever be; needed at the first call. What does not fill a batch is
        filled up with the block's first samples.
        """
        samples, labels = self._samples(X), np.asarray(y)
        if not hasattr(self, "program_"):
            if classes is None:
                raise DataError("the first partial_fit needs classes=: all labels there will be")
            self._start(samples, np.unique(classes), self.batch)
        numbers, batch = self._numbers(labels), self.program_.batch
        for i in range(0, len(samples), batch):
            rows = np.arange(i, i + batch) % len(samples)
            self.program_.step(samples[rows], numbers[rows], self.lr)
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The most likely label of each sample."""
        outputs = self._outputs(X)
        found: np.ndarray = self.classes_[outputs.argmax(1)]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """(N, classes) probabilities, in the order of `classes_`."""
        z = self._outputs(X).astype(np.float64)
        e = np.exp(z - z.max(1, keepdims=True))
        p: np.ndarray = e / e.sum(1, keepdims=True)
        return p

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Share of right labels."""
        return float((self.predict(X) == np.asarray(y)).mean())

    def _outputs(self, x: Any) -> np.ndarray:
        if not hasattr(self, "program_"):
            raise DataError("this classifier is not fitted yet: call fit first")
        return self.program_.predict(self._samples(x))

    def _samples(self, x: Any) -> np.ndarray:
        from trainlet.compiled.samples import as_array

        array = as_array(x)
        if array.ndim == 0 or len(array) == 0:
            raise DataError("there are no samples")
        if self.input_shape is not None and array.shape[1:] != tuple(self.input_shape):
            if array[0].size != int(np.prod(self.input_shape)):
                raise DataError(
                    f"samples of shape {array.shape[1:]} do not fit input_shape {self.input_shape}"
                )
            array = array.reshape(len(array), *self.input_shape)
        if array.dtype.kind in "fi" and array.dtype != np.int8:
            array = array.astype(np.float32, copy=False)
        return array

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        if unknown := sorted(set(labels.tolist()) - set(self.classes_.tolist()), key=str):
            raise DataError(f"label {unknown[0]!r} is none of the classes {self.classes_.tolist()}")
        return np.searchsorted(self.classes_, labels).astype(np.int32)

    def _start(self, samples: np.ndarray, classes: np.ndarray, batch: int) -> None:
        if len(classes) < 2:
            raise DataError("a classifier needs labels of at least 2 classes")
        self.classes_, self.n_features_in_ = classes, int(samples[0].size)
        self.program_ = self._compiled(samples, batch)

    def _compiled(self, samples: np.ndarray, batch: int) -> CompiledProgram:
        from trainlet.compiled import compile_model

        return compile_model(
            self.model, samples[:1].astype(np.float32), scheme=self.scheme, batch=batch, threads=self.threads,
            optimizer=self.optimizer, budget=self.budget, mean=self.mean, std=self.std, seed=self.seed,
            classes=len(self.classes_), keep_head=True,
        )  # fmt: skip

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "program_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator from its version 1.6 on."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=self.input_shape is not None, three_d_array=True),
        )

    def __repr__(self) -> str:
        shown = {k: v for k, v in self.get_params().items() if k != "model"}
        words = ", ".join(f"{k}={v!r}" for k, v in shown.items())
        return f"TrainletClassifier({type(self.model).__name__}, {words})"
