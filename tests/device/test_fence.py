"""Mutants that leave their memory: each faults, and the report says where and who."""

import re
from dataclasses import replace

import pytest

from tests.device.programs import ENGINES, available, small
from trainlet.device import FaultError, board, emulate
from trainlet.errors import BackendError

BOARDS = ("stm32f746", "stm32f207", "rp2350", "esp32c3")  # PMSAv7 with and without FPU, PMSAv8, PMP
CASES = [
    pytest.param(on, engine, marks=() if (on, engine) == ("stm32f746", "unicorn") else pytest.mark.slow)
    for on in BOARDS
    for engine in ENGINES
]
each = pytest.mark.parametrize(("on", "engine"), CASES)


def rewrite(path, pattern, replacement):
    text = path.read_text()
    changed, count = re.subn(pattern, replacement, text, count=1)
    assert count == 1, pattern
    path.write_text(changed)


def fault(folder, on, x, y, engine):
    with pytest.raises(FaultError) as caught:
        emulate(folder, on, (x, y), 2, engine=engine, timeout_s=60)
    return str(caught.value)


@each
def test_an_arena_one_word_short(on, engine, tmp_path):
    """The arena is moved to the end of the context, and declared one word shorter than the plan says."""
    available(engine, on)
    program, folder, x, y = small(tmp_path)
    words = -(-program.bytes["arena"] // 4)
    header = folder / "residual.h"
    rewrite(header, rf"  uint32_t arena\[{words}\];[^\n]*\n", "")
    rewrite(header, r"\} residual_t;", f"  uint32_t arena[{words - 1}];\n}} residual_t;")
    # The pad that rounds the struct to 8 bytes would forgive the word: without uint64_t there is none.
    rewrite(header, r"uint64_t scratch\[(\d+)\]", lambda m: f"uint32_t scratch[{2 * int(m[1])}]")
    said = fault(folder, on, x, y, engine)
    assert re.search(
        r"(access|write|read)[a-z ]* 0x[0-9a-f]{8}, \d+ bytes behind the last byte of the program's arena",
        said,
    )
    assert re.search(r"during (predict|step)", said)


@each
def test_a_stack_too_small(on, engine, tmp_path):
    available(engine, on)
    _, folder, x, y = small(tmp_path)
    part = replace(board(on), stack_bytes=512)
    said = fault(folder, part, x, y, engine)
    assert re.search(r"\d+ bytes under the stack of 512 bytes \(stack overflow\)", said)
    assert re.search(r"during (init|predict) in tl_\w+", said)


@each
def test_a_write_to_a_constant(on, engine, tmp_path):
    available(engine, on)
    _, folder, x, y = small(tmp_path)
    source = folder / "residual.c"
    constant = re.search(r"const \w+ (\w+)\[", (folder / "residual_data.h").read_text().split("\n", 5)[5])[1]
    rewrite(
        source, r"(void step_body\([^{]*\{)", rf"\1\n  *(volatile uint8_t *)(uintptr_t)&{constant}[0] = 1;"
    )
    said = fault(folder, on, x, y, engine)
    assert re.search(rf"0x[0-9a-f]{{8}}, in \w*{constant} in flash, which holds code and constants", said)
    assert re.search(r"by (step_body|residual_step)\S* \(at 0x[0-9a-f]{8}\), during step$", said)


@each
def test_a_wild_pointer(on, engine, tmp_path):
    available(engine, on)
    _, folder, x, y = small(tmp_path)
    rewrite(
        folder / "residual.c",
        r"(void step_body\([^{]*\{)",
        r"\1\n  *(volatile uint8_t *)(uintptr_t)0x10 = *(volatile uint8_t *)(uintptr_t)0x70000000;",
    )
    said = fault(folder, on, x, y, engine)
    assert "0x70000000, in no memory of this board" in said


@pytest.mark.parametrize("engine", ENGINES)
def test_the_emulator_watches_parts_without_memory_protection(engine, tmp_path):
    available(engine, "stm32f746")
    _, folder, x, y = small(tmp_path)
    part = replace(board("stm32f746"), fence="none")
    assert emulate(folder, part, (x, y), 1, engine=engine).identical
    rewrite(
        folder / "residual.c",
        r"(void residual_predict\([^{]*\{)",
        r"\1\n  *(volatile uint8_t *)(m + 1) = 1;",
    )
    said = fault(folder, part, x, y, engine)
    assert "write to 0x" in said and ("behind the last byte" in said or "outside the program's RAM" in said)
    assert "residual_predict (at 0x" in said


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_that_hangs_is_stopped(engine, tmp_path):
    available(engine, "stm32f746")
    _, folder, x, y = small(tmp_path)
    rewrite(
        folder / "residual.c",
        r"(void step_body\([^{]*\{)",
        r"\1\n  for (volatile int forever = 1; forever;) {\n  }",
    )
    with pytest.raises(BackendError, match="did not finish in"):
        emulate(folder, "stm32f746", (x, y), 1, engine=engine, timeout_s=3)


def test_the_intact_program_does_not_fault(tmp_path):
    available("unicorn", "stm32f746")
    _, folder, x, y = small(tmp_path)
    assert emulate(folder, "stm32f746", (x, y), 2, engine="unicorn").identical
