"""`boards` and `emulate` on the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.device.programs import available, small
from trainlet.cli.app import app


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words], prog_name="trainlet")


@pytest.fixture
def program(tmp_path):
    _, folder, _, _ = small(tmp_path / "program", "wave", False)
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (14, 40, 6)).astype(np.float32), np.arange(14) % 7
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return folder, tmp_path / "data.npz"


def test_boards_are_listed():
    text = run("boards").stdout
    assert "stm32f746" in text and "Cortex-M7" in text and "262,144" in text
    rows = {row["name"]: row for row in json.loads(run("boards", "--json").stdout)}
    assert rows["esp32c3"]["fpu"] is False and rows["stm32f746"]["ram_bytes"] == 327_680


def test_emulate_reports_bits_memory_and_instructions(program, tmp_path):
    available("unicorn", "stm32f746")
    folder, data = program
    line = ("emulate", folder, "--data", data, "--board", "stm32f746", "--steps", 3, "--engine", "unicorn")
    result = run(*line, "--output", tmp_path / "firmware")
    assert result.exit_code == 0, result.output
    for words in ("bit for bit as on this machine", "RAM", "flash", "not measured", "tl_conv_f32"):
        assert words in result.stdout
    assert (tmp_path / "firmware" / "firmware.elf").is_file()
    report = json.loads(run(*line, "--json").stdout)
    assert report["identical"] and len(report["losses"]) == 3
    assert report["ram_bytes"]["total"] < report["ram_bytes"]["budget"]
    assert report["instructions"]["step"] > report["instructions"]["predict"] > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--board", "z80"), "error: no board z80: there are"),
        (("--board", "none.toml"), "error: no board file none.toml"),
        (("--board", "stm32f746", "--accumulate", "2"), "compile it with --accumulate"),
    ],
)
def test_a_wrong_emulation_is_one_clear_line(words, says, program):
    available("unicorn", "stm32f746")
    folder, data = program
    result = run("emulate", folder, "--data", data, *words)
    assert result.exit_code == 1
    assert says in result.stderr and result.stderr.count("\n") == 1


def test_power_cuts_report_what_became_of_each(program):
    available("unicorn", "stm32f746")
    folder, data = program
    line = ("emulate", folder, "--data", data, "--board", "stm32f746", "--steps", 1, "--engine", "unicorn")
    result = run(*line, "--power-cuts", 1)
    assert result.exit_code == 0, result.output
    for words in (
        "power cut while it saves",
        "cut in 1, each torn in 6 ways",
        "12 boots",
        "lost 0, corrupt 0",
    ):
        assert words in result.stdout
    assert "every run ended in the bits of an uninterrupted run" in result.stdout
