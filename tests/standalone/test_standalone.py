"""Programs for the command line: of this machine and, cross-compiled, of an emulated Arm processor."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.host.programs import NETWORKS, samples
from trainlet.api import Settings, build
from trainlet.data import Dataset, InputTransform, Samples
from trainlet.errors import BackendError
from trainlet.scheme import Channels, UpdateScheme, layers
from trainlet.standalone import compile_standalone, write_dataset

GRAPH = NETWORKS["residual"]()
X, Y = samples(GRAPH, 22), (np.arange(22) * 7 % 5).astype(np.int32)
SETTINGS = Settings("last:3", batch=4)
STATE_AT = 24  # of a state file: magic, id, bytes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = Samples(X, InputTransform.of(GRAPH.inputs[0]))
    part = Samples(X[:10], kept.transform)
    return write_dataset(Dataset(kept, Y, part, Y[:10], (), ""), tmp_path_factory.mktemp("data") / "d.bin")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_standalone(GRAPH, SETTINGS, tmp_path_factory.mktemp("native"), backend="c99")[0]


def run(program: Path, *words: object, emulator: tuple[str, ...] = (), fails: bool = False) -> str:
    said = subprocess.run([*emulator, str(program), *map(str, words)], capture_output=True, text=True)
    assert (said.returncode != 0) == fails, said.stderr
    return said.stderr if fails else said.stdout


def trained(program: Path, data: Path, to: Path, emulator: tuple[str, ...] = ()) -> tuple[list[float], bytes]:
    """Losses by epoch and the state after three epochs in the order of the file."""
    words = ("train", data, "--epochs", 3, "--lr", 0.05, "--constant", "--in-order", "--save", to)
    text = run(program, *words, emulator=emulator)
    return [float(x) for x in re.findall(r"loss ([\d.]+)", text)], to.read_bytes()[STATE_AT:]


def test_it_redraws_channels_as_python_does(data: Path, tmp_path: Path) -> None:
    found = [x for x in layers(GRAPH) if not x.depthwise]
    some = {
        found[-2].weight.name: Channels(share=0.25, redraw=True),
        found[-1].weight.name: Channels(share=1.0),
    }
    settings = Settings(UpdateScheme("redrawn", some), batch=4)
    program = compile_standalone(GRAPH, settings, tmp_path / "redrawn", backend="c99")[0]
    _, state = trained(program, data, tmp_path / "s.bin")
    host = build(GRAPH, settings)
    for epoch in range(3):
        host.redraw(epoch)
        for i in range(0, 20, 4):
            host.step(X[i : i + 4], Y[i : i + 4], 0.05)
    assert state == host.region("state").tobytes()


def test_it_trains_as_python_does(native: Path, data: Path, tmp_path: Path) -> None:
    losses, state = trained(native, data, tmp_path / "s.bin")
    host = build(GRAPH, SETTINGS)
    expected = []
    for _ in range(3):
        expected.append(np.mean([host.step(X[i : i + 4], Y[i : i + 4], 0.05) for i in range(0, 20, 4)]))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert state == host.region("state").tobytes()
    right = (host.predict(X[:10]).argmax(1) == Y[:10]).mean()
    assert f"test {right:.4f} on 10 samples" in run(native, "eval", data, "--load", tmp_path / "s.bin")


def test_a_library_and_a_header_lie_beside_it(native: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.c").write_text(
        '#include "residual.h"\nstatic residual_t net;\n'
        "int main(void) { residual_init(&net, 0); return residual_STATE() ; }".replace(
            "residual_STATE()", "0"
        )
    )
    folder = native.parent
    words = [
        "cc",
        str(tmp_path / "mine.c"),
        f"-I{folder}",
        f"-I{folder}/kernels",
        f"-L{folder}",
        "-lresidual",
    ]
    subprocess.run([*words, "-lm", "-o", str(tmp_path / "mine")], check=True)
    assert subprocess.run([str(tmp_path / "mine")]).returncode == 0
    assert "batch 1 x 4, 189 elements a sample, 5 outputs" in run(native, "info")


def test_a_seed_draws_the_order(native: Path, data: Path) -> None:
    first, again, other = (
        re.findall(r"loss ([\d.]+)", run(native, "train", data, "--seed", s)) for s in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    "damage,message",
    [
        ("missing", "cannot open"),
        ("truncated", "damaged"),
        ("foreign", "no data file of trainlet"),
        ("another network", "another type or size"),
        ("a label beyond the classes", "no class of the network"),
        ("a foreign state", "no state of this program"),
        ("a word too much", "usage"),
        ("no number", "--lr needs a number"),
    ],
)
def test_what_is_wrong_is_said(damage: str, message: str, native: Path, data: Path, tmp_path: Path) -> None:
    file, words = tmp_path / "d.bin", []
    content = data.read_bytes()
    if damage == "truncated":
        content = content[:-3]
    elif damage == "foreign":
        content = b"x" * 100
    elif damage == "another network":
        content = content[:12] + b"\x01" + content[13:]
    elif damage == "a label beyond the classes":
        content = content[:-128] + np.full(32, 5, np.int32).tobytes()
    elif damage == "a foreign state":
        words = ["--load", data]
    elif damage == "a word too much":
        words = ["--depth", "3"]
    elif damage == "no number":
        words = ["--lr", "fast"]
    if damage != "missing":
        file.write_bytes(content)
    assert message in run(native, "train", file, *words, fails=True)


@pytest.mark.slow
def test_this_machines_fast_kernels_take_the_same_steps(native: Path, data: Path, tmp_path: Path) -> None:
    program, _ = compile_standalone(GRAPH, SETTINGS, tmp_path / "fast", backend="cpu")
    ours, fast = (trained(p, data, tmp_path / "s.bin")[0] for p in (native, program))
    np.testing.assert_allclose(fast, ours, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["c99", "cpu"])
def test_an_arm_processor_takes_the_same_steps(
    backend: str, native: Path, data: Path, tmp_path: Path
) -> None:
    """The portable kernels to the bit; the fast ones, whose registers are narrower there, within rounding."""
    emulator = shutil.which("qemu-aarch64")
    if emulator is None or importlib.util.find_spec("ziglang") is None:
        pytest.skip("needs qemu-user and ziglang")
    program, _ = compile_standalone(GRAPH, SETTINGS, tmp_path / "arm", "aarch64-linux", backend=backend)
    ours = trained(native, data, tmp_path / "here.bin")
    theirs = trained(program, data, tmp_path / "there.bin", (emulator,))
    if backend == "c99":
        assert theirs == ours
    np.testing.assert_allclose(theirs[0], ours[0], rtol=1e-4)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="target 'toaster' is none of native, x86_64-linux, aarch64-linux"):
        compile_standalone(GRAPH, SETTINGS, tmp_path, "toaster")
