"""Whatever is wrong with a model, scheme, data or machine: one clear line, nothing written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import arrays
from tests.frontends.onnx_models import Net, save

Fails = Callable[..., str]


@pytest.fixture(params=["inspect", "plan", "compile", "train", "eval"])
def command(request: pytest.FixtureRequest, data: Path, tmp_path: Path) -> tuple[str, list[Any]]:
    """A command that reads a model, and its options."""
    options = {
        "compile": ["-o", tmp_path / "program"],
        "train": ["--data", data, "--epochs", 1, "--lr", 0.01, "--checkpoint", tmp_path / "new" / "c"],
        "eval": ["--data", data],
    }
    return request.param, options.get(request.param, [])


# -- models ------------------------------------------------------------------------------------------


def test_unsupported_layers_are_listed_at_once(
    command: tuple[str, list[Any]], tmp_path: Path, fails: Fails
) -> None:
    net = Net(1, 3, 8, 8)
    y = net("Cosh", net("Resize", "x", "", net.const([1.0, 1.0, 2.0, 2.0])))
    path = save(net.model(net("LSTM", y, net.weight(1, 8, 3), net.weight(1, 8, 2), hidden_size=2)), tmp_path)
    message = fails(command[0], path, *command[1])
    for part in ("net.onnx", "3 layers", "/resize0: Resize", "/cosh1: Cosh", "/lstm2: LSTM"):
        assert part in message


def test_open_sizes_are_named(command: tuple[str, list[Any]], tmp_path: Path, fails: Fails) -> None:
    net = Net(1, 3, "height", 8)
    path = save(net.model(net("Relu", "x")), tmp_path)
    assert "dimension 2 (height) of input x" in fails(command[0], path, *command[1])


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(99)]
)
@pytest.mark.parametrize("name", ["bad.onnx", "bad.tl", "bad.json", "bad"])
def test_files_that_are_no_model_are_named(content: bytes, name: str, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in fails("plan", tmp_path / name)


def test_a_cut_model_is_named(command: tuple[str, list[Any]], model: Path, fails: Fails) -> None:
    model.write_bytes(model.read_bytes()[:400])
    assert "net.onnx" in fails(command[0], model, *command[1])


def test_a_missing_model_is_named(command: tuple[str, list[Any]], tmp_path: Path, fails: Fails) -> None:
    assert "nowhere.onnx" in fails(command[0], tmp_path / "nowhere.onnx", *command[1])


def test_a_folder_is_no_model(tmp_path: Path, fails: Fails) -> None:
    assert str(tmp_path) in fails("plan", tmp_path)


def test_a_cut_int8_network_is_named(model: Path, data: Path, tmp_path: Path, fails: Fails) -> None:
    from tests.cli.conftest import run

    run("quantize", model, "--data", data, "-o", tmp_path / "net8.tl")
    whole = (tmp_path / "net8.npz").read_bytes()
    (tmp_path / "net8.npz").write_bytes(whole[: len(whole) // 2])
    assert "net8.npz" in fails("plan", tmp_path / "net8.tl")
    (tmp_path / "net8.npz").unlink()
    assert "net8.tl" in fails("plan", tmp_path / "net8.tl")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(
    bad: float, command: tuple[str, list[Any]], tmp_path: Path, fails: Fails
) -> None:
    net = Net(1, 3, 8, 8)
    w = net.weight(4, 3, 3, 3, name="conv.weight")
    net.arrays[w][0, 0, 0, 0] = bad
    path = save(net.model(net("Flatten", net("GlobalAveragePool", net("Conv", "x", w)))), tmp_path)
    assert "conv.weight" in fails(command[0], path, *command[1])


# -- schemes -----------------------------------------------------------------------------------------

SCHEMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "unknown weight": ({"weights": {"pv.weight": "all"}}, ("pv.weight", "pw.weight")),
    "unknown bias": ({"biases": ["pw.bais"]}, ("pw.bais", "pw.bias")),
    "share 0": ({"weights": {"pw.weight": {"share": 0}}}, ("pw.weight", "share 0", "(0, 1]")),
    "share above 1": ({"weights": {"pw.weight": {"share": 1.5}}}, ("pw.weight", "1.5")),
    "share negative": ({"weights": {"pw.weight": {"share": -0.1}}}, ("pw.weight", "-0.1")),
    "share NaN": ({"weights": {"pw.weight": {"share": float("nan")}}}, ("pw.weight", "nan")),
    "channel out of range": ({"weights": {"pw.weight": {"indices": [0, 8]}}}, ("pw.weight", "[8]", "0 to 7")),
    "channel negative": ({"weights": {"pw.weight": {"indices": [-1]}}}, ("pw.weight", "[-1]")),
    "channel twice": ({"weights": {"pw.weight": {"indices": [1, 1]}}}, ("pw.weight", "repeat")),
    "too many channels": ({"weights": {"pw.weight": {"count": 9}}}, ("pw.weight", "9 channels of 8")),
    "nothing": ({"weights": {}}, ("trains nothing",)),
    "a list": ([1, 2], ("mine.json",)),
    "unknown entry": ({"layers": []}, ("mine.json", "layers")),
    "two rules": ({"weights": {"pw.weight": {"share": 0.5, "count": 2}}}, ("pw.weight", "exactly one")),
}


@pytest.mark.parametrize("what", SCHEMES)
def test_schemes_that_do_not_fit(what: str, model: Path, tmp_path: Path, fails: Fails) -> None:
    scheme, words = SCHEMES[what]
    (tmp_path / "mine.json").write_text(json.dumps(scheme))
    message = fails("compile", model, "--scheme", tmp_path / "mine.json", "-o", tmp_path / "program")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "scheme", ["last:0", "last:4", "last:", "last:x", "bias-only:99", "heads", "mcunet-5fps:49kb", "x.json"]
)
def test_names_of_schemes_that_do_not_fit(scheme: str, model: Path, data: Path, fails: Fails) -> None:
    words = ("--data", data, "--epochs", 1, "--lr", 0.1, "--checkpoint", model.with_name("c"))
    assert scheme in fails("train", model, "--scheme", scheme, *words)


def test_adamw_needs_float_masters(model: Path, data: Path, tmp_path: Path, fails: Fails) -> None:
    from tests.cli.conftest import run

    run("quantize", model, "--data", data, "-o", tmp_path / "net8.tl")
    words = ("--scheme", "last:1", "--optimizer", "adamw", "--master", "nearest")
    assert "--master fp32" in fails("plan", tmp_path / "net8.tl", *words)


# -- data --------------------------------------------------------------------------------------------


def _first(a: np.ndarray, value: Any) -> np.ndarray:
    a = a.astype(np.float32)
    a.flat[0] = value
    return a


DATA: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], tuple[str, ...]]] = {
    "NaN": (lambda d: {"x_train": _first(d["x_train"], np.nan)}, ("x_train", "sample 0")),
    "infinity": (lambda d: {"x_test": _first(d["x_test"], np.inf)}, ("x_test", "sample 0")),
    "another shape": (lambda d: {"x_train": d["x_train"][..., :5]}, ("x_train", "(48, 3, 8, 5)", "8, 8, 3")),
    "flat": (lambda d: {"x_train": d["x_train"].reshape(48, -1)}, ("x_train", "(48, 192)")),
    "text": (lambda d: {"x_train": d["x_train"].astype(str)}, ("x_train", "numbers")),
    "complex": (lambda d: {"x_train": d["x_train"].astype(complex)}, ("x_train", "complex")),
    "no samples": (lambda d: {"x_test": d["x_test"][:0], "y_test": d["y_test"][:0]}, ("x_test", "empty")),
    "fewer labels": (lambda d: {"y_train": d["y_train"][:-1]}, ("48 samples", "47 labels")),
    "negative label": (lambda d: {"y_train": d["y_train"] - 1}, ("y_train", "label -1")),
    "float labels": (
        lambda d: {"y_train": d["y_train"] + 0.5, "y_test": d["y_test"] + 0.5},
        ("data.npz", "loss"),
    ),
    "one-hot labels": (lambda d: {"y_train": np.eye(3, dtype=int)[d["y_train"]]}, ("y_train", "one-hot")),
    "labels of text": (lambda d: {"y_train": d["y_train"].astype(str)}, ("y_train", "class numbers")),
    "too few samples": (
        lambda d: {"x_train": d["x_train"][:3], "y_train": d["y_train"][:3]},
        ("3 training", "update of 4"),
    ),
}


def write(data: Path, what: str) -> None:
    held = arrays()
    np.savez(data, **{**held, **DATA[what][0](held)})


@pytest.mark.parametrize("what", DATA)
def test_data_that_does_not_fit(what: str, model: Path, data: Path, tmp_path: Path, fails: Fails) -> None:
    write(data, what)
    message = fails("train", model, "--data", data, "--epochs", 1, "--lr", 0.1, "--batch", 4,
                    "--checkpoint", tmp_path / "new" / "c", "--json", tmp_path / "r.json")  # fmt: skip
    for word in DATA[what][1]:
        assert word in message


@pytest.mark.parametrize("what", sorted(set(DATA) - {"too few samples"}))
def test_data_that_does_not_fit_a_compiled_program(
    what: str, model: Path, data: Path, tmp_path: Path, fails: Fails
) -> None:
    from tests.cli.conftest import run

    run("compile", model, "-o", tmp_path / "program")
    write(data, what)
    fails(
        "train",
        tmp_path / "program",
        "--data",
        data,
        "--epochs",
        1,
        "--lr",
        0.1,
        "--checkpoint",
        tmp_path / "c",
    )


def test_labels_beyond_the_classes_are_named(model: Path, data: Path, tmp_path: Path, fails: Fails) -> None:
    words = ("--data", data, "--epochs", 1, "--lr", 0.1, "--checkpoint", tmp_path / "c")
    message = fails("train", model, *words, "--classes", 2)
    assert "label 2" in message and "0 to 1" in message


def test_eval_wants_as_many_classes_as_outputs(model: Path, data: Path, fails: Fails) -> None:
    held = arrays()
    held["y_test"][0] = 5
    np.savez(data, **held)  # type: ignore[arg-type]
    message = fails("eval", model, "--data", data)
    assert "6 classes" in message and "3 outputs" in message


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
@pytest.mark.parametrize("name", ["d.npz", "d.zip", "d.csv"])
def test_damaged_data_is_named(content: bytes, name: str, model: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / name).write_bytes(content)
    assert name in fails("eval", model, "--data", tmp_path / name)


def test_missing_data_is_named(model: Path, tmp_path: Path, fails: Fails) -> None:
    assert "nowhere.npz" in fails("eval", model, "--data", tmp_path / "nowhere.npz")


@pytest.mark.parametrize("lr", [0, -1, "nan", "inf"])
def test_a_learning_rate_is_positive(lr: Any, model: Path, data: Path, tmp_path: Path, fails: Fails) -> None:
    message = fails("train", model, "--data", data, "--epochs", 1, "--lr", lr, "--checkpoint", tmp_path / "c")
    assert "learning rate" in message


# -- checkpoints -------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_network_is_refused(
    model: Path, data: Path, tmp_path: Path, fails: Fails
) -> None:
    from tests.cli.conftest import run

    run("train", model, "--data", data, "--epochs", 1, "--lr", 0.1, "--checkpoint", tmp_path / "c")
    other = model.rename(tmp_path / "other.onnx")
    for words in (("eval", other, "--data", data), ("export", other, "-o", tmp_path / "o.onnx")):
        message = fails(*words, "--checkpoint", tmp_path / "c")
        assert "network net" in message and "other" in message


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\xff" * 64 + b])
def test_a_damaged_checkpoint_is_named(
    damage: Callable[[bytes], bytes], model: Path, data: Path, tmp_path: Path, fails: Fails
) -> None:
    from tests.cli.conftest import run

    path = tmp_path / "c.safetensors"
    run("train", model, "--data", data, "--epochs", 1, "--lr", 0.1, "--checkpoint", path)
    path.write_bytes(damage(path.read_bytes()))
    assert "c.safetensors" in fails("eval", model, "--data", data, "--checkpoint", path)
    assert "c.safetensors" in fails("export", model, "--checkpoint", path, "-o", tmp_path / "o.onnx")


# -- the machine -------------------------------------------------------------------------------------


def training(model: Path, data: Path) -> tuple[Any, ...]:
    return ("train", model, "--data", data, "--epochs", 1, "--lr", 0.1, "--checkpoint", model.with_name("c"))


def test_without_a_compiler_it_says_what_to_install(
    model: Path, data: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(__import__("sys").modules, "ziglang", None)
    message = fails(*training(model, data))
    assert "no C compiler" in message and "ziglang" in message


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_wrong_compiler_is_named(
    compiler: str, model: Path, data: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert compiler in fails(*training(model, data))


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A path below a file: nobody can write there, root neither."""
    (tmp_path / "file").write_text("not a folder")
    return tmp_path / "file" / "below"


def test_an_unwritable_folder_is_named(model: Path, data: Path, blocked: Path, fails: Fails) -> None:
    one = ("train", model, "--data", data, "--epochs", 1, "--lr", 0.1)
    for words in (
        ("compile", model, "-o", blocked),
        (*one, "--checkpoint", blocked / "c"),
        (*one, "--json", blocked / "r.json"),
        ("export", model, "-o", blocked / "n.onnx"),
        ("export", model, "-o", blocked / "n.safetensors", "--to", "safetensors"),
        ("quantize", model, "--data", data, "-o", blocked / "q.tl"),
    ):
        assert str(blocked) in fails(*words)


def test_a_file_where_a_folder_should_be_is_named(model: Path, tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "program").write_text("")
    assert "program" in fails("compile", model, "-o", tmp_path / "program")


# -- where the input is ------------------------------------------------------------------------------


def test_rows_of_an_image_that_is_needed_whole(model: Path, tmp_path: Path, fails: Fails) -> None:
    message = fails("compile", model, "--input", "rows", "-o", tmp_path / "program")
    assert "cannot come by rows: Conv at " in message and "needs it whole; keep it in memory" in message
    assert not (tmp_path / "program").exists()
