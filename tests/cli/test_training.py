"""train: determinism, exact resume, what is shown and written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.cli.conftest import arrays, run, run_json
from tests.shared_files import shared
from trainlet.api import Settings, train
from trainlet.cli.app import app
from trainlet.cli.display import Display
from trainlet.runtime.checkpoint import load_checkpoint
from trainlet.runtime.trainer import Progress, TrainResult

RUN = ("--epochs", 4, "--lr", 0.05, "--scheme", "last:2", "--batch", 4)


def state(checkpoint: Path) -> dict[str, bytes]:
    return {k: a.tobytes() for k, a in load_checkpoint(checkpoint)[0].items()}


def quantized(model: Path, data: Path) -> Path:
    run("quantize", model, "--data", data, "-o", model.with_name("net8.tl"))
    return model.with_name("net8.tl")


def test_training_reports_what_it_did(model: Path, data: Path, tmp_path: Path) -> None:
    text = run("train", model, "--data", data, *RUN, "--json", tmp_path / "run.json")
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["accuracy"]["after"] > report["accuracy"]["before"]
    assert len(report["loss_per_epoch"]) == 4 and report["loss_per_epoch"][-1] < report["loss_per_epoch"][0]
    planned = run_json("plan", model, "--scheme", "last:2", "--batch", 4)["ram_bytes"]
    assert 0 < report["peak_bytes"] <= planned["arena"] and report["ram_bytes"] == planned
    assert report["seconds"] > 0
    lines = [line for line in text.splitlines() if line.startswith("epoch")]
    assert len(lines) == 4  # not a terminal: one line an epoch
    for word in ("loss", "accuracy", "samples/s", f"{report['peak_bytes']:,} bytes"):
        assert word in lines[0]
    assert "\x1b" not in text


@pytest.mark.parametrize(
    "words", [("--master", "stochastic"), ("--optimizer", "momentum", "--accumulate", 3)]
)
def test_the_same_seed_gives_the_same_bits(
    words: tuple[Any, ...], model: Path, data: Path, tmp_path: Path
) -> None:
    net = quantized(model, data)
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        run("train", net, "--data", data, *RUN, *words, "--seed", seed, "--checkpoint", tmp_path / name)
    assert state(tmp_path / "a") == state(tmp_path / "b") != state(tmp_path / "c")


class Stop(Exception):
    """Raised by a watch, as Ctrl-C would be."""


def stop_in(epoch: int | None) -> Callable[[Progress], None]:
    def watch(p: Progress) -> None:
        if p.epoch == epoch and p.step == 3:
            raise Stop

    return watch


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("rule,accumulate,augment", [
    ("sgd", 1, False), ("adamw", 1, False), ("momentum", 3, False), ("sgd", 1, True),
])  # fmt: skip
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    rule: str, accumulate: int, augment: bool, int8: bool, model: Path, data: Path, tmp_path: Path
) -> None:
    net = quantized(model, data) if int8 else model
    settings = Settings("last:2", "residual" if int8 and rule != "adamw" else "fp32", rule, batch=4)

    def go(name: str, stop: int | None, resume: bool) -> TrainResult:
        return train(net, data, settings, 4, 0.05, accumulate=accumulate, augment=augment, resume=resume,
                     checkpoint=tmp_path / name, watch=stop_in(stop))  # fmt: skip

    whole = go("whole", None, False)
    for epoch in (1, 3):
        with pytest.raises(Stop):
            go("parts", epoch, epoch > 1)
    parts = go("parts", None, True)
    assert state(tmp_path / "whole") == state(tmp_path / "parts")
    for key in ("accuracy_before", "accuracy_after", "loss_per_epoch", "accuracy_per_epoch", "peak_bytes"):
        assert getattr(whole, key) == getattr(parts, key)


def test_resume_on_the_command_line_goes_on(model: Path, data: Path, tmp_path: Path) -> None:
    run("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "whole")
    with pytest.raises(Stop):
        train(
            model, data, Settings("last:2", batch=4), 4, 0.05, checkpoint=tmp_path / "parts", watch=stop_in(2)
        )
    text = run("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "parts", "--resume")
    assert "epoch 3/4" in text and "epoch 2/4" not in text
    assert state(tmp_path / "whole") == state(tmp_path / "parts")


def test_resuming_a_finished_run_changes_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    words = ("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "c")
    run(*words)
    before = (tmp_path / "c").read_bytes()
    run(*words, "--resume")
    assert (tmp_path / "c").read_bytes() == before


@pytest.mark.parametrize("changed,named", [
    (("--lr", 0.1), "lr"), (("--scheme", "head"), "scheme"), (("--optimizer", "momentum"), "optimizer"),
    (("--epochs", 5), "epochs"), (("--seed", 3), "seed"), (("--batch", 8), "batch"),
])  # fmt: skip
def test_resuming_with_other_settings_is_refused(
    changed: tuple[Any, ...], named: str, model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    words = ("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "c")
    run(*words)
    assert named in fails(*words, "--resume", *changed)


def test_resuming_with_other_data_is_refused(
    model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    words = ("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "c")
    run(*words)
    held = arrays()
    held["x_train"][0] += 1
    np.savez(data, **held)  # type: ignore[arg-type]
    assert "other data" in fails(*words, "--resume")


def test_resuming_needs_a_checkpoint(
    model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    words = ("train", model, "--data", data, *RUN, "--resume")
    assert "name the checkpoint" in fails(*words)
    assert "no checkpoint at" in fails(*words, "--checkpoint", tmp_path / "none")
    (tmp_path / "junk").write_bytes(b"junk")
    assert "junk is damaged" in fails(*words, "--checkpoint", tmp_path / "junk")


def test_ctrl_c_keeps_the_last_checkpoint(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainlet.cli import training

    class Impatient(training.Display):
        def __call__(self, progress: Progress) -> None:
            if progress.epoch == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(training, "Display", Impatient)
    words = ["train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "c"]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 130
    assert result.stderr.startswith("stopped: ") and "epoch 2 of 4" in result.stderr
    assert result.stderr.count("\n") == 1 and load_checkpoint(tmp_path / "c")[1]["run"]["epoch"] == 2


def test_a_loss_that_is_not_finite_stops_the_run(
    model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    message = fails("train", model, "--data", data, "--epochs", 3, "--scheme", "full", "--lr", 1e30,
                    "--checkpoint", tmp_path / "c")  # fmt: skip
    assert (
        "epoch 1, step " in message
        and "lower the learning rate" in message
        and "nothing was saved" in message
    )


@pytest.mark.parametrize("warmup", [4, 5])
def test_a_warm_up_is_shorter_than_the_run(
    warmup: int, model: Path, data: Path, fails: Callable[..., str]
) -> None:
    assert "warm-up" in fails("train", model, "--data", data, *RUN, "--warmup", warmup)


def test_the_last_good_checkpoint_survives_a_divergence(model: Path, data: Path, tmp_path: Path) -> None:
    # Warm-up so long that the first epochs are tame.
    words = ["train", model, "--data", data, "--epochs", 40, "--scheme", "full", "--lr", 40, "--warmup", 39,
             "--optimizer", "momentum", "--checkpoint", tmp_path / "c"]  # fmt: skip
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 1 and "error: " in result.stderr and " step " in result.stderr
    tensors, meta = load_checkpoint(tmp_path / "c")
    assert meta["run"]["epoch"] >= 1 and f"the last good state is in {tmp_path / 'c'}" in result.stderr
    assert all(np.isfinite(a).all() for a in tensors.values())


def test_another_number_of_classes_gets_a_new_head(model: Path, data: Path, tmp_path: Path) -> None:
    held = arrays()
    for part in ("y_train", "y_test"):
        held[part] = held[part] % 2
    np.savez(data, **held)  # type: ignore[arg-type]
    text = run("train", model, "--data", data, *RUN, "--checkpoint", tmp_path / "c")
    assert "new head" in text and "2 classes" in text
    assert run_json("eval", model, "--data", data, "--checkpoint", tmp_path / "c")["samples"] == 24


@pytest.mark.parametrize("loss,metric", [
    ("mean-squared-error", "negative mean squared error"), ("sigmoid-cross-entropy", "accuracy"),
])  # fmt: skip
def test_targets_may_be_real_numbers(loss: str, metric: str, model: Path, data: Path, tmp_path: Path) -> None:
    held = arrays()
    for part in ("y_train", "y_test"):
        held[part] = np.eye(3, dtype=np.float32)[held[part]]
    np.savez(data, **held)  # type: ignore[arg-type]
    run(
        "train",
        model,
        "--data",
        data,
        *RUN,
        "--loss",
        loss,
        "--json",
        tmp_path / "r",
        "--checkpoint",
        tmp_path / "c",
    )
    report = json.loads((tmp_path / "r").read_text())
    assert report["metric"] == metric and report["accuracy"]["after"] > report["accuracy"]["before"]
    found = run_json("eval", model, "--data", data, "--checkpoint", tmp_path / "c")
    assert found["accuracy"] == pytest.approx(report["accuracy"]["after"])


def test_a_compiled_program_refuses_settings_it_has_already(
    model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    run("compile", model, "-o", tmp_path / "program")
    words = ("train", tmp_path / "program", "--data", data, "--epochs", 1, "--lr", 0.01)
    assert "leave out --scheme" in fails(*words, "--scheme", "head")
    assert "--accumulate" in fails(*words, "--accumulate", 4)


@pytest.mark.shared
def test_a_published_scheme_trains_its_network_on_images(tmp_path: Path) -> None:
    images = np.load(shared("data/cifar10/cifar10.npz"))
    few = {k: images[k][:24] for k in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "few.npz", **few, classes=images["classes"])
    net = shared("reference/models/mcunet-5fps.json")
    words = ("--data", tmp_path / "few.npz", "--checkpoint", tmp_path / "c")
    run("train", net, *words, "--scheme", "49kb", "--master", "residual", "--epochs", 2, "--lr", 1e-3,
        "--json", tmp_path / "r.json")  # fmt: skip
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["new_head"] == 10 and 0 < report["peak_bytes"] <= report["ram_bytes"]["arena"]
    assert run_json("eval", net, *words)["accuracy"] == report["accuracy"]["after"]


def test_a_terminal_shows_a_bar(model: Path, data: Path) -> None:
    console = Console(force_terminal=True, width=140, file=io.StringIO(), record=True)
    with Display(console, 2) as display:
        train(model, data, Settings("head"), 2, 0.05, watch=display)
    text = console.export_text()
    assert "epoch 2/2  loss" in text and "samples/s" in text
