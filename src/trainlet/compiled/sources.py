"""Where training batches come from: arrays, a data set of ours, files, a torch Dataset or DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainlet.compiled.samples import LabelForm, SampleForm, as_array
from trainlet.data import Augment, Dataset, load_data
from trainlet.errors import DataError


@dataclass(frozen=True)
class Batch:
    """Samples of one update. `indices` name samples that are the same every epoch (None: they are not);
    `load(rows)` gives the program's inputs of some rows of this batch."""

    labels: np.ndarray
    load: Callable[[slice], np.ndarray]
    indices: np.ndarray | None = None


class Source(Protocol):
    """Batches of `batch` samples. `samples`: how many there are to remember, 0 where none repeats."""

    @property
    def samples(self) -> int: ...

    @property
    def steps(self) -> int: ...

    def epoch(self, number: int) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Arrays:
    """Samples by index, in an order drawn from (seed, epoch); what does not fill a batch is left out."""

    take: Callable[[np.ndarray, int], np.ndarray]  # (indices, epoch) -> program inputs
    labels: np.ndarray
    batch: int
    seed: int
    shuffle: bool
    repeats: bool

    @property
    def samples(self) -> int:
        return len(self.labels) if self.repeats else 0

    @property
    def steps(self) -> int:
        return len(self.labels) // self.batch

    def epoch(self, number: int) -> Iterator[Batch]:
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng([self.seed, number]).permutation(order)
        for step in range(self.steps):
            rows = order[step * self.batch : (step + 1) * self.batch]

            def load(part: slice, rows: np.ndarray = rows) -> np.ndarray:
                return self.take(rows[part], number)

            yield Batch(self.labels[rows], load, rows if self.repeats else None)


@dataclass(frozen=True)
class Loader:
    """Whatever yields (samples, labels) batches of any size each time it is iterated over: a DataLoader.

    Samples are regrouped into batches of the program; a rest at the end of an epoch is left out.
    """

    loader: Any
    form: SampleForm
    label_form: LabelForm
    batch: int

    @property
    def samples(self) -> int:
        return 0

    @property
    def steps(self) -> int:
        """Updates an epoch, 0 where the loader does not tell."""
        data = getattr(self.loader, "dataset", None)
        if data is not None and hasattr(data, "__len__"):
            return len(data) // self.batch
        return len(self.loader) if hasattr(self.loader, "__len__") else 0

    def epoch(self, number: int) -> Iterator[Batch]:
        xs: list[np.ndarray] = []
        ys: list[np.ndarray] = []
        for pair in self.loader:
            x, y = _pair(pair)
            xs.append(self.form.batch(x))
            ys.append(self.label_form.batch(y, len(xs[-1])))
            if sum(map(len, xs)) < self.batch:
                continue
            x_all, y_all = np.concatenate(xs), np.concatenate(ys)
            whole = len(x_all) // self.batch * self.batch
            for i in range(0, whole, self.batch):
                block = x_all[i : i + self.batch]
                yield Batch(y_all[i : i + self.batch], block.__getitem__)
            xs, ys = [x_all[whole:]], [y_all[whole:]]


def _pair(item: Any) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError("the data has to give pairs of samples and labels")
    return item[0], item[1]


def source_of(
    data: Any,
    form: SampleForm,
    label_form: LabelForm,
    batch: int,
    seed: int,
    shuffle: bool = True,
    augment: bool = False,
) -> Source:
    """Batches of `data`, which is one of

        (x, y)                 arrays or tensors, x as `form` says
        a path                 an .npz, or a folder or .zip of images by class: its training part
        trainlet.data.Dataset  its training part
        a torch Dataset        anything with len() whose items are (sample, label)
        a DataLoader           any iterable of (samples, labels) batches; it has its own order

    augment: flip and shift images at random. Raises DataError where the data does not fit.
    """
    if isinstance(data, str | Path):
        classes = label_form.outputs if label_form.value.dtype == "s32" else None
        data = load_data(
            data, input=form.value, classes=classes, mean=form.transform.mean, std=form.transform.std
        )
    random = _augment(form, seed) if augment else None
    if isinstance(data, Dataset):
        stored, labels = data.x_train, label_form.batch(data.y_train)

        def take(rows: np.ndarray, epoch: int) -> np.ndarray:
            return stored.batch(rows, random, epoch)

        return _checked(Arrays(take, labels, batch, seed, shuffle, random is None))
    if isinstance(data, tuple) and len(data) == 2:
        return _checked(_arrays(data[0], data[1], form, label_form, batch, seed, shuffle, random))
    if augment:
        raise DataError("augment works on arrays and image folders; a torch data set has its own transforms")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not hasattr(data, "batch_size"):
        return _checked(_items(data, form, label_form, batch, seed, shuffle))
    if hasattr(data, "__iter__"):
        return Loader(data, form, label_form, batch)
    raise DataError(
        f"no data in a {type(data).__name__}: give (x, y), a path, a torch Dataset or a DataLoader"
    )


def _augment(form: SampleForm, seed: int) -> Augment:
    if len(form.value.shape) != 4:
        raise DataError(f"augment flips and shifts images, samples have shape {form.sample_shape}")
    return Augment(seed)


def _arrays(
    x: Any,
    y: Any,
    form: SampleForm,
    label_form: LabelForm,
    batch: int,
    seed: int,
    shuffle: bool,
    random: Augment | None,
) -> Arrays:
    x, labels = as_array(x), label_form.batch(y)
    if len(x) != len(labels):
        raise DataError(f"there are {len(x)} samples and {len(labels)} labels")
    if len(x):
        form.batch(x[:1])  # type and shape, before the first step
    check_all(x)

    def take(rows: np.ndarray, epoch: int) -> np.ndarray:
        block = x[rows]
        if random is not None:
            block = form.restored(random(block.transpose(form.perm), rows, epoch))
        return form.batch(block)

    return Arrays(take, labels, batch, seed, shuffle, random is None)


def check_all(x: np.ndarray, block: int = 256) -> None:
    """Raises DataError naming the first of all samples that is not finite."""
    from trainlet.compiled.samples import check_finite

    for i in range(0, len(x) if x.dtype.kind == "f" else 0, block):
        if not np.isfinite(x[i : i + block].sum()):
            check_finite(x, "samples")


def _items(
    data: Any, form: SampleForm, label_form: LabelForm, batch: int, seed: int, shuffle: bool
) -> Arrays:
    """A data set by index. Its transforms may be random, so no sample counts as seen before."""

    def fetch(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = [_pair(data[int(i)]) for i in rows]
        x = form.batch(np.stack([as_array(x) for x, _ in pairs]))
        return x, label_form.batch(np.stack([as_array(y) for _, y in pairs]))

    return _Items(
        lambda rows, epoch: fetch(rows)[0], np.zeros(len(data), np.int32), batch, seed, shuffle, False, fetch
    )


@dataclass(frozen=True)
class _Items(Arrays):
    """A torch Dataset: a label is known only once its item is fetched."""

    fetch: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

    def epoch(self, number: int) -> Iterator[Batch]:
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng([self.seed, number]).permutation(order)
        for step in range(self.steps):
            x, y = self.fetch(order[step * self.batch : (step + 1) * self.batch])
            yield Batch(y, x.__getitem__)


def _checked(source: Arrays) -> Arrays:
    if source.steps == 0:
        raise DataError(
            f"{len(source.labels)} samples do not fill one update of {source.batch}: "
            "compile with a smaller batch"
        )
    return source
