"""Data files of a user: .npz arrays, or images in a folder or zip, checked against the network."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainlet.data.dataset import Dataset, Samples
from trainlet.data.images import MAX_CLASSES, PARTS, list_images, open_tree, read_images
from trainlet.data.transform import InputTransform
from trainlet.errors import DataError
from trainlet.ir.graph import Value

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
NAMES = ("class_names", "classes")


def load_data(
    path: str | os.PathLike[str],
    *,
    input: Value,  # noqa: A002  (the graph's input)
    classes: int | None,
    size: tuple[int, int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    seed: int = 0,
    test_share: float = 0.2,
) -> Dataset:
    """Samples for the network input `input` (N, *sample shape), labels for `classes` classes.

    path: an .npz with x_train, y_train, x_test, y_test (and class_names, if it likes), or a folder or
    .zip of images (layouts: data/images.py; `seed` and `test_share` matter where they have no split).
    Arrays may have their channels first. Images are resized to the network's height and width, or to
    `size` of which the middle is cut out. `InputTransform` says what becomes of pixels, where `mean`
    and `std` apply. classes=None: integer labels define the classes, float labels are the targets of
    a regression. Raises DataError, one sentence, where the data is damaged or does not fit.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no data at {path}")
    if not 0 < test_share < 1:
        raise DataError(f"test_share {test_share} is not between 0 and 1")
    transform = InputTransform.of(input, mean, std)
    if path.is_dir() or path.suffix.lower() == ".zip":
        return _load_images(path, input, classes, _through(input, size), transform, seed, test_share)
    if path.suffix.lower() == ".npz":
        return _load_arrays(path, input, classes, size, transform)
    raise DataError(f"{path} is neither an .npz, a .zip of images nor a folder of images")


def _through(value: Value, size: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width images are resized to before the middle is cut out."""
    network = _image_size(value)
    if size is None:
        return network
    if min(a - b for a, b in zip(size, network, strict=True)) < 0:
        raise DataError(f"size {tuple(size)} is smaller than the network's images, {network}")
    return (int(size[0]), int(size[1]))


def _image_size(value: Value) -> tuple[int, int]:
    if len(value.shape) != 4:
        raise DataError(f"input {value.name} {value.shape} takes no images (N, height, width, channels)")
    return value.shape[1], value.shape[2]


def _load_images(
    path: Path,
    value: Value,
    classes: int | None,
    through: tuple[int, int],
    transform: InputTransform,
    seed: int,
    test_share: float,
) -> Dataset:
    size, channels = _image_size(value), value.shape[3]
    if channels not in (1, 3):
        raise DataError(f"input {value.name} takes {channels} channels; image files give 1 (grey) or 3 (RGB)")
    tree = open_tree(path)
    listing = list_images(tree, seed, test_share)
    if classes is not None and len(listing.class_names) > classes:
        raise DataError(f"{path} holds {len(listing.class_names)} classes, the network tells {classes} apart")
    if empty := [part for part in PARTS if not listing.paths[part]]:
        raise DataError(f"{path} leaves no images to {empty[0]}; add images or a {empty[0]} folder")
    pixels = [read_images(tree, listing.paths[part], channels, size, through) for part in PARTS]
    train, test = (Samples(p, transform) for p in pixels)
    return Dataset(
        train, listing.labels["train"], test, listing.labels["test"], listing.class_names, listing.split
    )


def _load_arrays(
    path: Path, value: Value, classes: int | None, size: tuple[int, int] | None, transform: InputTransform
) -> Dataset:
    arrays = _read_npz(path)
    samples, labels = {}, {}
    for part in PARTS:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        where = f"x_{part} in {path}"
        samples[part] = _as_samples(x, where, value, size, transform)
        labels[part] = _as_labels(y, f"y_{part} in {path}", classes)
        if len(x) != len(y):
            raise DataError(f"{where} holds {len(x)} samples, y_{part} {len(y)} labels")
    return Dataset(
        samples["train"],
        labels["train"],
        samples["test"],
        labels["test"],
        _names(arrays, path, labels, classes),
        "the arrays of the file",
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The samples, labels and class names of an .npz; DataError where it is damaged or lacks any."""
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            raise DataError(f"{path} holds one array; save {', '.join(ARRAYS)} with numpy.savez")
        with held:
            if missing := [name for name in ARRAYS if name not in held.files]:
                there = ", ".join(held.files) or "nothing"
                raise DataError(f"{path} has no array {missing[0]}; it holds {there}")
            return {name: held[name] for name in held.files if name in (*ARRAYS, *NAMES)}
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, KeyError):
        raise DataError(
            f"{path} cannot be read: it is truncated, no .npz, or holds Python objects instead of numbers"
        ) from None


def _as_samples(
    x: np.ndarray, where: str, value: Value, size: tuple[int, int] | None, transform: InputTransform
) -> Samples:
    """Stored samples, channels last. Raises DataError where type, shape or values do not fit the input."""
    if x.dtype.kind not in "fiu":
        raise DataError(f"{where} is {x.dtype}; give numbers")
    if x.ndim == 0 or len(x) == 0:
        raise DataError(f"{where} is empty")
    _check_finite(x, where)
    x = _channels_last(x, where, value)
    if x.shape[1:] == value.shape[1:] and size is None:
        return Samples(x, transform)
    return Samples(x, transform, _image_size(value), _through(value, size))


def _check_finite(a: np.ndarray, where: str) -> None:
    if a.dtype.kind == "f" and not (finite := np.isfinite(a)).all():
        bad = int(np.argmin(finite.reshape(len(a), -1).all(1)))
        raise DataError(f"{where}: sample {bad} holds NaN or infinity")


def _channels_last(x: np.ndarray, where: str, value: Value) -> np.ndarray:
    """x as (M, *spatial, C), a view. An image may keep its own height and width when it holds pixels."""
    want = value.shape[1:]
    if x.shape[1:] == want:
        return x
    if want[-1] == 1 and x.ndim == len(want):
        x = x[..., None]
    channels, flipped = want[-1], np.moveaxis(x, 1, -1) if x.ndim == len(want) + 1 else None
    if x.shape[1:] == want:
        return x
    if flipped is not None and flipped.shape[1:] == want:
        return flipped
    if x.dtype == np.uint8 and x.ndim == 4 and len(want) == 3:
        last, first = x.shape[-1] == channels, x.shape[1] == channels
        if last != first:
            return x if last else np.moveaxis(x, 1, -1)
    raise DataError(
        f"{where} has shape {x.shape}, which does not fit input {value.name} "
        f"(samples, {', '.join(map(str, want))}); only uint8 images are resized"
    )


def _as_labels(y: np.ndarray, where: str, classes: int | None) -> np.ndarray:
    """int32 class numbers (M), or float32 targets where classes is None and labels are floats."""
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "iu":
        y = y[:, 0]
    if y.dtype.kind == "f" and classes is None:
        _check_finite(y, where)
        return y.astype(np.float32)
    if y.dtype.kind not in "iu":
        raise DataError(f"{where} is {y.dtype}; give class numbers as integers")
    if y.ndim != 1:
        raise DataError(f"{where} has shape {y.shape}; give one class number a sample, not one-hot rows")
    below = MAX_CLASSES if classes is None else classes
    bad = np.flatnonzero((y < 0) | (y >= below))
    if len(bad):
        raise DataError(f"{where}: label {y[bad[0]]} of sample {bad[0]} is outside 0 to {below - 1}")
    return y.astype(np.int32)


def _names(
    arrays: dict[str, np.ndarray], path: Path, labels: dict[str, np.ndarray], classes: int | None
) -> tuple[str, ...]:
    """Class names of the file, else numbers; none for a regression."""
    if labels["train"].dtype != np.int32:
        return ()
    largest = max(int(y.max(initial=-1)) for y in labels.values())
    for key in NAMES:
        if key in arrays and arrays[key].ndim == 1 and arrays[key].dtype.kind in "US":
            names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in arrays[key].tolist())
            if len(names) <= largest or (classes is not None and len(names) > classes):
                raise DataError(
                    f"{path} names {len(names)} classes, its labels reach {largest}"
                    + (f" and the network tells {classes} apart" if classes else "")
                )
            return names
    return tuple(str(i) for i in range(classes or largest + 1))
