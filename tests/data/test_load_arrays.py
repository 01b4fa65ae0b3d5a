from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shared_files import shared
from trainlet.data import Augment, Dataset, load_data
from trainlet.errors import DataError
from trainlet.ir import Quant, Value

IMAGE = Value("image", "f32", (1, 8, 12, 3))
REFERENCE = Value("image", "s8", (1, 8, 12, 3), Quant(2 / 255, 0))
SERIES = Value("series", "f32", (1, 50, 6))


def arrays(
    sample: tuple[int, ...] = (8, 12, 3), dtype: str = "uint8", **changes: Any
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.integers(0, 100, (10, *sample)).astype(dtype)
    y = random.integers(0, 4, 10)
    return {"x_train": x[:6], "y_train": y[:6], "x_test": x[6:], "y_test": y[6:], **changes}


def saved(folder: Path, **held: np.ndarray) -> Path:
    path = folder / "data.npz"
    np.savez(path, **held)  # type: ignore[arg-type]
    return path


def load(folder: Path, held: dict[str, np.ndarray], value: Value = IMAGE, classes: int | None = 4,
         **more: Any) -> Dataset:  # fmt: skip
    return load_data(saved(folder, **held), input=value, classes=classes, **more)


def test_samples_index_like_arrays(tmp_path: Path) -> None:
    held = arrays()
    data = load(tmp_path, held)
    x = held["x_train"].astype(np.float32) / 255
    assert data.x_train.shape == (6, 8, 12, 3)
    assert len(data.x_train) == 6
    assert data.x_train.dtype == np.float32
    np.testing.assert_allclose(data.x_train[2], x[2], rtol=1e-6)
    np.testing.assert_allclose(data.x_train[1:4], x[1:4], rtol=1e-6)
    np.testing.assert_allclose(data.x_train[np.array([5, 0])], x[[5, 0]], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(data.x_train), x, rtol=1e-6)
    assert data.y_train.dtype == np.int32
    assert data.class_names == ("0", "1", "2", "3")
    assert data.split == "the arrays of the file"


def test_class_names_come_along(tmp_path: Path) -> None:
    data = load(tmp_path, arrays(classes=np.array(["a", "b", "c", "d"])))
    assert data.class_names == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="names 2 classes, its labels reach 3"):
        load(tmp_path, arrays(class_names=np.array(["a", "b"])))


def test_channels_first_is_transposed_without_a_copy(tmp_path: Path) -> None:
    held = arrays()
    first = {k: np.moveaxis(v, -1, 1) if k[0] == "x" else v for k, v in held.items()}
    data = load(tmp_path, first, REFERENCE)
    assert (data.x_train[:] == held["x_train"].astype(int) - 128).all()
    assert not data.x_train.stored.flags.owndata


def test_series_with_channels_first_or_none(tmp_path: Path) -> None:
    held = arrays((6, 50), "float32")
    assert (load(tmp_path, held, SERIES).x_train[:] == held["x_train"].transpose(0, 2, 1)).all()
    flat = arrays((50,), "int16")
    one = load(tmp_path, flat, Value("x", "f32", (1, 50, 1)))
    assert (one.x_train[:][..., 0] == flat["x_train"]).all()
    assert load(tmp_path, flat, Value("x", "f32", (1, 50))).x_train.shape == (6, 50)


def test_pixels_of_another_size_are_resized_once_on_demand(tmp_path: Path) -> None:
    data = load(tmp_path, arrays((4, 6, 3)), REFERENCE)
    assert data.x_train.shape == (6, 8, 12, 3)
    assert data.x_train._resized is None
    first = data.x_train[np.array([4, 4, 1])]
    assert data.x_train._known.tolist() == [False, True, False, False, True, False]
    assert (data.x_train[4] == first[1]).all()
    flat = {**arrays((4, 6, 3)), "x_train": np.full((6, 4, 6, 3), 77, np.uint8)}
    assert (load(tmp_path, flat, REFERENCE).x_train[:] == 77 - 128).all()


def test_resizing_agrees_with_pillow_for_any_number_of_channels(tmp_path: Path) -> None:
    from PIL import Image

    held = arrays((4, 6, 5))
    data = load(tmp_path, held, Value("x", "f32", (1, 8, 12, 5)))
    plane = Image.fromarray(held["x_train"][2, :, :, 3]).resize((12, 8), Image.Resampling.BILINEAR)
    assert (data.x_train.raw(np.array([2]))[0, :, :, 3] == np.asarray(plane)).all()
    grey = load(tmp_path, arrays((4, 6)), Value("x", "f32", (1, 8, 12, 1)))
    assert grey.x_train[:].shape == (6, 8, 12, 1)


def test_size_cuts_the_middle_out(tmp_path: Path) -> None:
    held = arrays((12, 20, 3))
    data = load(tmp_path, held, REFERENCE, size=(12, 20))
    assert (data.x_train[:] == held["x_train"][:, 2:10, 4:16].astype(int) - 128).all()
    with pytest.raises(DataError, match="size .* is smaller than the network's images"):
        load(tmp_path, held, REFERENCE, size=(4, 20))


def test_augmented_batches_depend_on_seed_epoch_and_index(tmp_path: Path) -> None:
    x = load(tmp_path, arrays(), REFERENCE).x_train
    at, augment = np.array([3, 1]), Augment(5)
    assert (x.batch(at, augment, 2)[1] == x.batch(at[1:], augment, 2)[0]).all()
    assert (x.batch(at) == x[at]).all()


def test_regression_targets_stay_float(tmp_path: Path) -> None:
    y = np.linspace(0, 1, 10).reshape(5, 2)
    held = arrays(y_train=np.concatenate([y, y[:1]]), y_test=y[:4])
    data = load(tmp_path, held, classes=None)
    assert data.y_train.dtype == np.float32
    assert data.y_train.shape == (6, 2)
    assert data.class_names == ()


def test_classes_follow_the_labels_where_they_are_not_given(tmp_path: Path) -> None:
    held = arrays(y_train=np.array([[0], [1], [6], [2], [0], [1]], np.uint8), y_test=np.array([0, 1, 1, 0]))
    data = load(tmp_path, held, classes=None)
    assert data.y_train.tolist() == [0, 1, 6, 2, 0, 1]
    assert len(data.class_names) == 7


HUGE = np.array([0, 1, 2, 3, 2**40, 0])
BAD: list[tuple[dict[str, Any], str]] = [
    ({"y_train": HUGE}, "label 1099511627776 of sample 4 is outside 0 to 3"),
    ({"y_train": np.array([0, 1, 2, 3, 4, 0])}, r"y_train in .*: label 4 of sample 4 is outside 0 to 3"),
    ({"y_test": np.array([0, 1, -1, 3])}, "label -1 of sample 2 is outside"),
    ({"y_train": np.zeros(6)}, "y_train in .* is float64; give class numbers as integers"),
    ({"y_train": np.zeros((6, 4), int)}, r"shape \(6, 4\); give one class number a sample"),
    ({"y_train": np.zeros(5, int)}, "holds 6 samples, y_train 5 labels"),
    ({"x_train": np.zeros((6, 8, 12, 4), np.uint8)}, r"has shape \(6, 8, 12, 4\), .* fit input image"),
    ({"x_train": np.zeros((6, 4, 6, 3), np.float32)}, "only uint8 images are resized"),
    ({"x_train": np.zeros((0, 8, 12, 3), np.uint8)}, "x_train in .* is empty"),
    ({"x_test": np.float32(3)}, "x_test in .* is empty"),
    ({"x_train": np.array(["a"] * 6)}, "give numbers"),
    ({"x_train": np.full((6, 8, 12, 3), np.nan)}, "x_train in .*: sample 0 holds NaN or infinity"),
    ({"x_train": np.array([None] * 6)}, "holds Python objects"),
]


@pytest.mark.parametrize(("changes", "sentence"), BAD)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load(tmp_path, arrays(**changes))


def test_missing_arrays_files_and_kinds_are_named(tmp_path: Path) -> None:
    held = arrays()
    del held["x_test"]
    with pytest.raises(DataError, match="has no array x_test; it holds x_train, y_train, y_test"):
        load(tmp_path, held)
    with pytest.raises(DataError, match="there is no data at"):
        load_data(tmp_path / "absent.npz", input=IMAGE, classes=4)
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"neither an \.npz"):
        load_data(tmp_path / "data.csv", input=IMAGE, classes=4)
    with pytest.raises(DataError, match="label 1099511627776 .* outside 0 to 65535"):
        load(tmp_path, arrays(y_train=HUGE), classes=None)


@pytest.mark.parametrize("keep", [0, 100, 1500])
def test_truncated_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path, **arrays())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"data.npz cannot be read: it is truncated"):
        load_data(path, input=IMAGE, classes=4)


def test_one_bare_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataError, match="holds one array"):
        load_data(tmp_path / "x.npz", input=IMAGE, classes=4)


@pytest.mark.shared
def test_cifar10_upscaled_stays_small_until_it_is_asked_for() -> None:
    value = Value("input", "s8", (1, 128, 128, 3), Quant(0.00784313725490196, 0))
    data = load_data(shared("data/cifar10/cifar10.npz"), input=value, classes=10)
    assert data.x_train.shape == (6000, 128, 128, 3)
    assert data.x_train.stored.nbytes == 6000 * 32 * 32 * 3
    assert data.x_test[:8].dtype == np.int8
    assert data.class_names[:2] == ("airplane", "automobile")


@pytest.mark.shared
def test_spoken_digits_are_series_of_one_channel() -> None:
    data = load_data(shared("data/fsdd/fsdd_8k_1s.npz"), input=Value("x", "f32", (1, 8000, 1)), classes=10)
    assert data.x_test.shape == (300, 8000, 1)
