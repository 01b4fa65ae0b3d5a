"""Loads, stores and words they move, decoded from an instruction's bits, against a disassembler."""

import ctypes
import re
import shutil
import subprocess

import pytest

from tests.device.programs import available, small
from trainlet.device import board, build_firmware, emulate
from trainlet.device.counting import counter_library

# What moves data; everything else that a disassembler prints does not.
MULTIPLE = re.compile(r"(v?)(push|pop|ldm|stm|ldmia|stmia|ldmdb|stmdb)")
SINGLE = re.compile(r"(v?)(ldr|str)(ex)?(s?[bh]|d)?t?")


@pytest.fixture(scope="module")
def transfer():
    return ctypes.CDLL(str(counter_library("unicorn.c"))).hook_transfer


def registers(operands):
    """Words of a register list: {r0, r1}, {r4-r7, lr}, {d8-d9}, {s0-s3}."""
    count = 0
    for item in re.search(r"\{([^}]*)\}", operands)[1].split(","):
        first, _, last = item.strip().partition("-")
        number = int(last[1:]) - int(first[1:]) + 1 if last else 1
        count += number * (2 if first.startswith("d") else 1)
    return count


def expected(mnemonic, operands):
    """Words that move, negative to memory."""
    name = mnemonic.split(".")[0]
    if name in ("tbb", "tbh"):
        return 1
    if match := MULTIPLE.match(name):
        return registers(operands) * (-1 if match[2] in ("push", "stm", "stmia", "stmdb") else 1)
    if match := SINGLE.match(name):
        double = match[4] == "d" or (match[1] and operands.startswith("d"))
        return (2 if double else 1) * (-1 if match[2] == "str" else 1)
    return 0


def disassembled(elf, tool):
    """(first halfword, second, mnemonic, operands) of each instruction."""
    text = subprocess.run([tool, "-d", str(elf)], capture_output=True, text=True, check=True).stdout
    for line in text.splitlines():
        match = re.match(r"\s+[0-9a-f]+:\t([0-9a-f]{4})(?: ([0-9a-f]{4}))? +\t(\S+)(?:\t(.*))?$", line)
        if match and not match[3].startswith("."):
            yield int(match[1], 16), int(match[2] or "0", 16), match[3], match[4] or ""


@pytest.mark.parametrize("on", ["stm32f746", "stm32f207"])
def test_every_instruction_of_a_firmware_moves_what_its_disassembly_says(on, transfer, tmp_path):
    tool = shutil.which("arm-none-eabi-objdump")
    if tool is None:
        pytest.skip("needs arm-none-eabi-objdump")
    _, folder, _, _ = small(tmp_path / "program")
    elf = build_firmware(folder, board(on), tmp_path / "work", compiler="gcc").elf.path
    seen, moved = 0, set()
    for first, second, mnemonic, operands in disassembled(elf, tool):
        words = expected(mnemonic, operands)
        assert transfer(first, second, 1) == words, (hex(first), hex(second), mnemonic, operands)
        seen, moved = seen + 1, moved | {words}
    assert seen > 3000 and {-1, 1, -2, 2} <= moved and max(moved) > 3 and min(moved) < -3


# Assembled with binutils; sp and r0 as base.
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (0xB5F0, 0, -5),  # push {r4-r7, lr}
        (0xBDF0, 0, 5),  # pop {r4-r7, pc}
        (0xE9D0, 0x1200, 2),  # ldrd r1, r2, [r0]
        (0xE8F0, 0x1202, 2),  # ldrd r1, r2, [r0], #8
        (0xE850, 0x1F00, 1),  # ldrex r1, [r0]
        (0xE8DF, 0xF001, 1),  # tbb [pc, r1]
        (0xE8B0, 0x00FE, 7),  # ldmia.w r0!, {r1-r7}
        (0xED2D, 0x8B10, -16),  # vpush {d8-d15}
        (0xECBD, 0x8B10, 16),  # vpop {d8-d15}
        (0xECB0, 0x0A04, 4),  # vldmia r0!, {s0-s3}
        (0xED90, 0x0B00, 2),  # vldr d0, [r0]
        (0xED80, 0x0A00, -1),  # vstr s0, [r0]
        (0xEC51, 0x0B10, 0),  # vmov r0, r1, d0
        (0xEE00, 0x0A10, 0),  # vmov s0, r0
        (0xF890, 0xF000, 0),  # pld [r0]
        (0xF8D0, 0xF000, 1),  # ldr.w pc, [r0]
        (0xF930, 0x1011, 1),  # ldrsh.w r1, [r0, r1, lsl #1]
        (0xF84D, 0x0D04, -1),  # str.w r0, [sp, #-4]!
        (0xFB00, 0xF001, 0),  # mul.w r0, r0, r1
        (0xBF00, 0, 0),  # nop
    ],
)
def test_thumb_instructions_move(first, second, words, transfer):
    assert transfer(first, second, 1) == words


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (0x2503, 0x0005, 1),  # lw a0, 0(a0)
        (0x2023, 0x00A5, -1),  # sw a0, 0(a0)
        (0x4108, 0, 1),  # c.lw a0, 0(a0)
        (0xC10C, 0, -1),  # c.sw a1, 0(a0)
        (0x4502, 0, 1),  # c.lwsp a0, 0(sp)
        (0xC02A, 0, -1),  # c.swsp a0, 0(sp)
        (0x852A, 0, 0),  # c.mv a0, a0
        (0x0533, 0x00B5, 0),  # add a0, a0, a1
    ],
)
def test_riscv_instructions_move(first, second, words, transfer):
    assert transfer(first, second, 0) == words


def test_the_report_counts_words_and_prices_them(tmp_path):
    available("unicorn", "stm32f746")
    program, _, x, y = small(tmp_path)
    report = emulate(program, "stm32f746", (x, y), 1, engine="unicorn").as_dict()
    moved, n = report["transfers"]["step"], report["instructions"]["step"]
    assert 0 < moved["extra_words"] < moved["loads"] + moved["stores"] < n
    assert report["projected_ms"]["step"] == pytest.approx((n + moved["extra_words"]) / 216e3)
    kernels = report["kernels"]["step"].values()
    assert 0 < sum(k["extra_words"] for k in kernels) <= moved["extra_words"]
    assert "each further word" in report["assumption"]
