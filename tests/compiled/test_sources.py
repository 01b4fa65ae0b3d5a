"""Training data from torch's data sets and loaders, and which of it may be remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trainlet
from tests.host.programs import NETWORKS, samples
from trainlet.compiled import CompiledProgram
from trainlet.errors import DataError

torch = pytest.importorskip("torch")
GRAPH = NETWORKS["residual"]()
X, Y = samples(GRAPH, 22), (np.arange(22) * 7 % 5).astype(np.int64)


@pytest.fixture
def program() -> CompiledProgram:
    return trainlet.compile(GRAPH, scheme="last:3", batch=4)


def tensors() -> object:
    return torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


def test_a_torch_data_set_trains_as_its_arrays_do(program: CompiledProgram) -> None:
    expected = program.fit((X, Y), epochs=2, cache=None)
    program.reset()
    result = program.fit(tensors(), epochs=2)
    assert result.loss == expected.loss and "do not repeat" in result.cache
    assert program.score(tensors()) == program.score((X, Y))


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_loader_is_regrouped_into_the_programs_batches(size: int, program: CompiledProgram) -> None:
    expected = program.fit((X, Y), epochs=2, shuffle=False).loss
    program.reset()
    loader = torch.utils.data.DataLoader(tensors(), batch_size=size)
    assert program.fit(loader, epochs=2).loss == expected
    assert program.score(loader) == program.score((X, Y))


def test_tensors_are_arrays(program: CompiledProgram) -> None:
    assert program.step(torch.from_numpy(X[:4]), torch.from_numpy(Y[:4]), 0.1) > 0
    assert np.array_equal(program.predict(torch.from_numpy(X)), program.predict(X))


def test_images_by_class_are_read_from_a_folder(program: CompiledProgram, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 128, (9, 7, 3)) + (128 if name == "dog" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{i}.png")
    result = program.fit(tmp_path, epochs=30, lr=0.05, validation=tmp_path)
    assert result.loss[-1] < result.loss[0] and result.validation[-1] == 1.0


def test_augmented_samples_are_never_remembered(program: CompiledProgram) -> None:
    result = program.fit((X, Y), epochs=2, augment=True)
    assert "do not repeat" in result.cache
    program.reset()
    assert program.fit((X, Y), epochs=2, augment=True).loss == result.loss
    program.reset()
    assert program.fit((X, Y), epochs=2).loss != result.loss


@pytest.mark.parametrize(
    "data,message",
    [
        ((X[:3], Y[:3]), "3 samples do not fill one update of 4"),
        ((X, Y[:5]), "22 samples and 5 labels"),
        ((np.where(np.arange(22)[:, None, None, None] == 9, np.nan, X).astype(np.float32), Y), "9 holds NaN"),
        (3, "no data in a int"),
        ([1, 2, 3, 4], "pairs of samples and labels"),
        ("nowhere.npz", "no data at nowhere.npz"),
    ],
)
def test_data_that_does_not_fit_is_refused(data: object, message: str, program: CompiledProgram) -> None:
    before = program.host.region("state").tobytes()
    with pytest.raises(DataError, match=message):
        program.fit(data)
    assert program.host.region("state").tobytes() == before
