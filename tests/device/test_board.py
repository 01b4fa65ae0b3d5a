"""Boards: those that come with the package, a user's own, and what is said about a bad one."""

import pytest

from trainlet.device import Board, board, boards
from trainlet.device.board import FOLDER
from trainlet.device.build import cross_compiler
from trainlet.device.engine import choose_engine
from trainlet.errors import BackendError

GOOD = (FOLDER / "stm32f746.toml").read_text()


def test_boards_cover_the_cores():
    found = boards()
    assert {"stm32f746", "nrf52840", "rp2350", "stm32f207", "corstone300", "esp32c3"} <= set(found)
    assert {b.fpu for b in found.values()} == {True, False}
    assert all(b.gcc and b.zig and b.qemu for b in found.values())


def test_stm32f746_is_the_board_of_the_reference():
    b = board("stm32f746")
    assert (b.ram.bytes, b.ram.budget_bytes, b.flash.bytes) == (320 << 10, 256 << 10, 1 << 20)
    assert (b.clock_mhz, b.fma) == (216, True)
    assert b.milliseconds(216_000) == pytest.approx(1.0)
    assert "not measured" in b.assumption


def test_a_board_of_ones_own_works_by_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("clock_mhz = 216", "clock_mhz = 100.5"))
    b = board(path)
    assert isinstance(b, Board) and (b.name, b.clock_mhz) == ("mine", 100.5)
    assert board(str(path)) == b and board(b) is b


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('isa = "thumb"', 'isa = "avr"', "mine.toml: isa is 'avr', it must be one of thumb, riscv32"),
        ("fpu = true", 'fpu = "yes"', "fpu is 'yes', it must be true or false"),
        ("fpu = true", "", "fpu is missing"),
        ("clock_mhz = 216", "clock_mhz = 0", "clock_mhz must be positive"),
        ("clock_mhz = 216", "clock_mhz = -3", "clock_mhz is -3.0, it must lie in"),
        ("bytes = 327_680", "bytes = 1000", "[ram]: bytes is 1000, it must be a multiple of 32"),
        ("budget_bytes = 262_144", "budget_bytes = 524_288", "is more than the 327680 bytes there are"),
        ("stack_bytes = 4096", "stack_bytes = 262_144", "leaves nothing of the RAM"),
        ("stack_bytes = 4096", "stack_byte = 4096", "stack_bytes is missing"),
        ("stack_bytes = 4096", "stack_bytes = 4096\nspeed = 1", "unknown speed; known are"),
        ('fence = "pmsav7"', 'fence = "pmp"', "fence is 'pmp', it must be one of pmsav7, pmsav8, none"),
        ("[ram]", "[ram", "is not TOML"),
        ('cpu = "cortex-m7"', 'cpu = "cortex-a53"', "[unicorn]: cpu is 'cortex-a53'"),
        ('flags = ["-mcpu=cortex-m7"', "flags = [3", "flags must be a list of strings"),
        ('machine = "mps2-an500"', "", "[qemu]: machine is missing"),
        ("origin = 0x20000000", "origin = 0xfffffff0", "[ram]: origin is 4294967280, it must be a multiple"),
        ("origin = 0x20000000", "origin = 0xffffffe0", "pass the end of the address space"),
    ],
)
def test_a_bad_board_file_names_its_key(old, new, says, tmp_path):
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(BackendError) as error:
        board(path)
    assert says in str(error.value) and "mine.toml" in str(error.value)


def test_an_unknown_board_lists_the_known():
    with pytest.raises(BackendError, match="no board z80: there are corstone300, .*stm32f746"):
        board("z80")


def test_a_missing_board_file_is_named(tmp_path):
    with pytest.raises(BackendError, match="no board file .*none.toml"):
        board(tmp_path / "none.toml")


@pytest.mark.parametrize(("on", "qemu", "gcc"), [
    ("stm32f746", "qemu-system-arm", "gcc-arm-none-eabi"),
    ("esp32c3", "qemu-system-misc", "gcc-riscv64-unknown-elf"),
])  # fmt: skip
def test_a_missing_tool_says_both_routes(on, qemu, gcc, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError) as error:
        choose_engine(board(on))
    assert f"`apt-get install {qemu}`" in str(error.value) and "`pip install unicorn`" in str(error.value)
    with pytest.raises(BackendError) as error:
        cross_compiler(board(on))
    assert f"`apt-get install {gcc}`" in str(error.value) and "`pip install ziglang`" in str(error.value)


@pytest.mark.parametrize("unit", ["0", "257"])
def test_a_programming_unit_that_the_store_cannot_write_is_refused(unit, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("program_unit = 4", f"program_unit = {unit}"))
    with pytest.raises(BackendError, match="program_unit"):
        board(path)


def test_time_prices_instructions_and_further_words(tmp_path):
    path = tmp_path / "mine.toml"
    keys = "cycles_per_instruction = 1.5\ncycles_per_extra_word = 0.5\n[ram]"
    path.write_text(GOOD.replace("[ram]", keys, 1))
    assert board(path).milliseconds(216_000, 72_000) == pytest.approx(1.5 + 0.5 / 3)
    assert "1.5 cycles per instruction and 0.5 for each further word" in board(path).assumption
