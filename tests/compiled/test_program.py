"""trainlet.compile gives a program that trains as the emitted C does and refuses what does not fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import trainlet
from tests.host.programs import NETWORKS, samples
from trainlet.compiled import CompiledProgram
from trainlet.data import Dataset, InputTransform, Samples
from trainlet.errors import BackendError, BudgetError, CheckpointError, DataError, ModelError, TrainingError
from trainlet.runtime.toolchain import cache_folder

GRAPH = NETWORKS["residual"]()
X, Y = samples(GRAPH, 40), (np.arange(40) * 7 % 5).astype(np.int64)


@pytest.fixture
def program() -> CompiledProgram:
    return trainlet.compile(GRAPH, scheme="last:3", batch=4, backend="c99")


def state(p: CompiledProgram) -> bytes:
    return p.host.region("state").tobytes()


def test_a_step_is_the_emitted_programs(program: CompiledProgram) -> None:
    host = trainlet.build(GRAPH, trainlet.Settings("last:3", batch=4))
    assert program.step(X[:4], Y[:4], 0.1) == host.step(X[:4], Y[:4], 0.1)
    assert state(program) == host.region("state").tobytes()
    assert np.array_equal(program.predict(X), host.predict(X))


def test_both_backends_take_the_same_steps(program: CompiledProgram) -> None:
    fast = trainlet.compile(GRAPH, scheme="last:3", batch=4)
    assert fast.host.manifest["build"]["backend"] == "cpu"
    for i in range(0, 40, 4):
        assert fast.step(X[i : i + 4], Y[i : i + 4], 0.05) == pytest.approx(
            program.step(X[i : i + 4], Y[i : i + 4], 0.05), rel=1e-5
        )


def test_fit_learns_what_it_is_shown(program: CompiledProgram) -> None:
    result = program.fit((X[:8], Y[:8]), epochs=60, lr=0.1, validation=(X[:8], Y[:8]))
    assert result.loss[-1] < 0.5 * result.loss[0]
    assert result.validation[-1] > result.validation[0] and result.steps == 120
    program.reset()
    assert program.fit((X[:8], Y[:8]), epochs=60, lr=0.1).loss == result.loss


def test_a_data_set_and_arrays_give_the_same_steps(program: CompiledProgram) -> None:
    first = program.fit((X, Y), epochs=2).loss
    program.reset()
    same = Samples(X, InputTransform.of(GRAPH.inputs[0]))
    data = Dataset(same, Y.astype(np.int32), same, Y.astype(np.int32), (), "")
    assert program.fit(data, epochs=2).loss == first


def test_channels_first_samples_are_transposed() -> None:
    p, q = (trainlet.compile(GRAPH, scheme="head", batch=4, layout=layout) for layout in ("NHWC", "NCHW"))
    turned = np.ascontiguousarray(np.moveaxis(X, -1, 1))
    assert p.step(X[:4], Y[:4], 0.1) == q.step(turned[:4], Y[:4], 0.1)
    assert np.array_equal(p.predict(X), q.predict(turned))


def test_pixels_are_scaled_by_mean_and_std() -> None:
    p = trainlet.compile(GRAPH, scheme="head", mean=(0.5, 0.4, 0.3), std=0.2)
    pixels = np.random.default_rng(0).integers(0, 256, (3, *GRAPH.inputs[0].shape[1:])).astype(np.uint8)
    real = ((pixels / 255 - np.array([0.5, 0.4, 0.3])) / 0.2).astype(np.float32)
    np.testing.assert_allclose(p.predict(pixels), p.predict(real), rtol=1e-5, atol=1e-6)


BAD = {
    "too few samples": ((X[:3], Y[:3]), r"shape \(3, 9, 7, 3\), the program takes \(4, 9, 7, 3\)"),
    "another layout": ((np.moveaxis(X[:4], -1, 1), Y[:4]), "this is NCHW; compile with layout='NCHW'"),
    "another type": ((X[:4].astype(np.float64), Y[:4]), r"float64.*x\.astype\('float32'\)"),
    "NaN": ((np.where(np.arange(3) == 1, np.nan, X[:4]).astype(np.float32), Y[:4]), "number 0 holds NaN"),
    "infinity": ((np.where(X[:4] > 2, np.inf, X[:4]).astype(np.float32), Y[:4]), "NaN or infinity"),
    "no such class": ((X[:4], Y[:4] + 5), "classes 0..4"),
    "real labels": ((X[:4], Y[:4] / 2), "class numbers as integers"),
    "one sample": ((X[0], Y[:4]), r"x\[None\]"),
    "a negative rate": ((X[:4], Y[:4], -0.1), "learning rate -0.1"),
    "NaN as rate": ((X[:4], Y[:4], float("nan")), "learning rate nan"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_and_leaves_the_state(kind: str, program: CompiledProgram) -> None:
    arguments, message = BAD[kind]
    before = state(program)
    with pytest.raises(DataError, match=message):
        program.step(*arguments)
    assert state(program) == before


def test_arrays_that_are_not_contiguous_are_copied(program: CompiledProgram) -> None:
    wide = np.concatenate([X[:8], X[:8]], axis=3)[::2, :, :, :3]
    assert not wide.flags.c_contiguous
    other = trainlet.compile(GRAPH, scheme="last:3", batch=4, backend="c99")
    assert program.step(wide, Y[:8:2], 0.1) == other.step(wide.copy(), Y[:8:2].copy(), 0.1)


def test_a_loss_that_diverges_puts_the_state_back_to_the_epochs_start(program: CompiledProgram) -> None:
    before = state(program)
    with pytest.raises(TrainingError, match="lower the learning rate"), np.errstate(all="ignore"):
        program.fit((1e4 * X, Y), epochs=2, lr=1e4)
    assert state(program) == before


def test_the_second_compile_takes_the_first_ones_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = [o for o in cache_folder().glob("*.o") if len(o.stem) == 32]  # kernels need not be compiled anew
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    for kernel in built:
        shutil.copyfile(kernel, cache_folder() / kernel.name)
    one = trainlet.compile(GRAPH, scheme="head")
    stamp = (one.host.folder / "program.json").stat().st_mtime_ns
    assert trainlet.compile(GRAPH, scheme="head").host.folder == one.host.folder
    assert (one.host.folder / "program.json").stat().st_mtime_ns == stamp
    others = [trainlet.compile(GRAPH, scheme="head", seed=1), trainlet.compile(GRAPH, scheme="full")]
    assert len({p.host.folder for p in (one, *others)}) == 3
    changed = NETWORKS["residual"]()
    next(iter(changed.constants.values())).data[...] *= 1.5
    assert trainlet.compile(changed, scheme="head").host.folder != one.host.folder


def test_a_saved_program_goes_on_where_it_was(program: CompiledProgram, tmp_path: Path) -> None:
    program.fit((X, Y), epochs=1)
    again = trainlet.load_program(program.save(tmp_path / "net.trainlet"))
    assert state(again) == state(program)
    assert program.fit((X, Y), epochs=1, lr=0.02).loss == again.fit((X, Y), epochs=1, lr=0.02).loss
    weights = again.state_dict()
    assert all(np.array_equal(v, weights[k]) for k, v in program.state_dict().items())


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign"])
def test_a_damaged_file_is_refused(damage: str, program: CompiledProgram, tmp_path: Path) -> None:
    path = tmp_path / "net.trainlet"
    if damage == "truncated":
        path.write_bytes(program.save(path).read_bytes()[:-100])
    elif damage == "foreign":
        path.write_text("no program")
    with pytest.raises(CheckpointError, match=r"net\.trainlet"):
        trainlet.load_program(path)


def test_trained_weights_stand_in_the_state_dict(program: CompiledProgram) -> None:
    program.fit((X, Y), epochs=1, lr=0.05)
    weights = program.state_dict()
    frozen = {k for k, t in GRAPH.constants.items() if np.array_equal(t.data, weights[k])}
    trained = {p.name for p in program.parameters}
    assert set(weights) == set(GRAPH.constants) and frozen == set(weights) - trained


def test_a_budget_is_met_with_the_same_result() -> None:
    whole = trainlet.compile(GRAPH, batch=8, backend="c99")
    ram = sum(whole.host.manifest["bytes"][m] for m in ("arena", "state", "scratch"))
    tight = trainlet.compile(GRAPH, batch=8, budget=ram // 2, backend="c99")
    assert tight.memory is not None and tight.batch == 8 and tight.memory.ram_bytes <= ram // 2
    assert "fewer than the whole batch takes" in tight.memory.text
    assert tight.step(X[:8], Y[:8], 0.05) == pytest.approx(whole.step(X[:8], Y[:8], 0.05), rel=1e-6)
    for a, b in zip(tight.state_dict().values(), whole.state_dict().values()):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    loose = trainlet.compile(GRAPH, batch=8, budget=f"{ram}", backend="c99")
    assert loose.memory is not None and loose.memory.calls == 1


def test_wrong_arguments_are_refused_in_words() -> None:
    with pytest.raises(ModelError, match=r"no model in a int: give a torch\.nn\.Module"):
        trainlet.compile(3)
    with pytest.raises(BackendError, match="trainlet compile --target aarch64-linux"):
        trainlet.compile(GRAPH, target="aarch64-linux")
    with pytest.raises(BackendError, match="backend 'cuda' is none of"):
        trainlet.compile(GRAPH, backend="cuda")
    with pytest.raises(BudgetError, match="'40 parsecs' is no number of bytes"):
        trainlet.compile(GRAPH, budget="40 parsecs")


def test_a_regression_is_scored_by_its_error() -> None:
    p = trainlet.compile(GRAPH, scheme="head", batch=4, loss="mean-squared-error")
    targets = np.random.default_rng(2).normal(size=(40, 5)).astype(np.float32)
    before = p.score((X, targets))
    assert before == pytest.approx(-float(((p.predict(X) - targets) ** 2).mean()), rel=1e-5)
    p.fit((X, targets), epochs=5)
    assert p.score((X, targets)) > before
