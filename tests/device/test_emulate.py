"""Programs on emulated boards compute the host's bits, on every core and in every emulator."""

from dataclasses import replace

import numpy as np
import pytest

from tests.device.programs import ENGINES, available, small
from trainlet.device import board, boards, build_firmware, emulate, report_lines
from trainlet.device.build import Image
from trainlet.device.emulate import Outcome, compare, decode, make_job, run_image
from trainlet.device.engine_unicorn import run_unicorn
from trainlet.errors import BackendError, BudgetError, DataError

FAST = ("stm32f746", "esp32c3")
CASES = [
    pytest.param(name, engine, marks=() if name in FAST and engine == "unicorn" else pytest.mark.slow)
    for name in boards()
    for engine in ENGINES
]


@pytest.mark.parametrize(("on", "engine"), CASES)
def test_boards_compute_the_bits_of_the_host(on, engine, tmp_path):
    available(engine, on)
    program, _, x, y = small(tmp_path, batch=2)
    report = emulate(program, on, (x, y), 3, lr=0.05, engine=engine)
    assert report.identical, report.difference
    assert len(report.losses) == 3 and np.isfinite(report.losses).all()
    assert report.memory.ram_bytes <= board(on).ram.budget_bytes
    assert 500 < report.memory.stack_bytes < report.memory.stack_reserved_bytes


@pytest.mark.parametrize(
    ("name", "int8", "settings"),
    [
        ("excited", False, {}),
        ("wave", True, {"master": "residual"}),
        ("perceptron", False, {"optimizer": "adamw"}),
        ("residual", True, {"accumulate": True}),
    ],
)
def test_other_programs_compute_the_bits_of_the_host(name, int8, settings, tmp_path):
    available("unicorn", "stm32f746")
    _, folder, x, y = small(tmp_path, name, int8, **settings)
    calls = 2 if settings.get("accumulate") else 1
    report = emulate(folder, "stm32f746", (x, y), 4, lr=0.02, calls_per_update=calls, engine="unicorn")
    assert report.identical, report.difference


def test_both_compilers_compute_the_same(tmp_path):
    available("qemu", "stm32f746")
    program, _, x, y = small(tmp_path)
    reports = [emulate(program, "stm32f746", (x, y), 2, engine="qemu", compiler=c) for c in ("gcc", "zig")]
    assert reports[0].losses == reports[1].losses and all(r.identical for r in reports)


@pytest.mark.parametrize("compiler", ["gcc", "zig"])
def test_both_emulators_count_the_same(compiler, tmp_path):
    available("qemu", "stm32f746")
    available("unicorn", "stm32f746")
    program, _, x, y = small(tmp_path)
    a, b = (emulate(program, "stm32f746", (x, y), 2, engine=engine, compiler=compiler) for engine in ENGINES)
    assert a.predict == b.predict and a.steps == b.steps and a.memory == b.memory


@pytest.mark.parametrize("on", FAST)
def test_counts_equal_single_instructions(on, tmp_path):
    """Blocks are counted; here every instruction is, one by one. Unicorn leaves out Thumb instructions whose
    condition fails; they take their cycle all the same, and count."""
    import unicorn

    available("unicorn", on)
    _, folder, x, y = small(tmp_path, "perceptron", False, scheme="head")
    part, work, single = board(on), tmp_path / "work", [0]
    image = build_firmware(folder, part, work, compiler="zig")
    job = make_job(image.manifest, (x, y), 1, 0.1, 1)

    def each(uc, address, size, data):
        single[0] += 1

    run = run_unicorn(image, part, job.encode(), work, 60, lambda uc: uc.hook_add(unicorn.UC_HOOK_CODE, each))
    assert run.exit_code == 0
    skipped = run.counts.total - single[0]
    assert skipped == 0 if on == "esp32c3" else 0 <= skipped < 0.01 * run.counts.total


def test_kernels_account_for_every_instruction(tmp_path):
    available("unicorn", "stm32f746")
    program, _, x, y = small(tmp_path)
    report = emulate(program, "stm32f746", (x, y), 2, engine="unicorn")
    for region in (report.predict, *report.steps):
        kernels = region.kernels()
        assert sum(n for _, n in kernels.values()) == region.instructions
        assert kernels["tl_conv_s8"][0] >= 1
        assert 0 < kernels["between kernels"][1] < 0.05 * region.instructions
    step = report.as_dict()["instructions"]
    assert (
        step["step_forward"] + step["step_backward_and_update"]
        == step["step"]
        == report.steps[-1].instructions
    )
    assert report.predict.instructions < step["step_forward"] * 1.2
    assert any("tl_conv_s8" in line for line in report_lines(report.as_dict()))


def test_samples_arrive_in_the_arena_of_a_planned_program(tmp_path):
    available("unicorn", "stm32f746")
    program, _, x, y = small(tmp_path)
    a = emulate(program, "stm32f746", (x, y), 1, engine="unicorn").memory
    assert a.sample_bytes == 0
    assert a.context_bytes - program.ram_bytes in range(64)


def test_samples_of_a_folder_arrive_in_a_buffer_that_is_counted(tmp_path):
    available("unicorn", "stm32f746")
    _, folder, x, y = small(tmp_path, batch=2)
    m = emulate(folder, "stm32f746", (x, y), 1, engine="unicorn").memory
    if m.sample_bytes:  # program.json may say where samples lie in the arena
        assert m.sample_bytes == -(-2 * x[0].nbytes // 4) * 4
    assert m.bss_bytes >= m.context_bytes + m.sample_bytes


def test_the_firmware_is_left_for_whoever_asks(tmp_path):
    available("unicorn", "stm32f746")
    program, _, x, y = small(tmp_path / "program")
    emulate(program, "stm32f746", (x, y), 1, engine="unicorn", output=tmp_path / "out")
    assert {"firmware.elf", "firmware.ld", "program_config.h"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_data_is_read_as_train_reads_it(tmp_path):
    available("unicorn", "stm32f746")
    _, folder, _, _ = small(tmp_path, "wave", False)
    x = np.random.default_rng(0).normal(0, 1, (20, 40, 6)).astype(np.float32)
    labels = np.arange(20) % 7
    np.savez(tmp_path / "d.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    report = emulate(folder, "stm32f746", tmp_path / "d.npz", 2, engine="unicorn")
    assert report.identical


def test_a_program_too_large_says_by_how_much(tmp_path):
    part = board("stm32f746")
    _, folder, _, _ = small(tmp_path / "p")
    tiny = replace(part, ram=replace(part.ram, budget_bytes=8192))
    with pytest.raises(
        BudgetError, match=r"needs [\d,]+ bytes of RAM .* [\d,]+ more than the 8,192 of stm32f746"
    ):
        build_firmware(folder, tiny, tmp_path / "w", compiler="zig")
    tiny = replace(part, flash=replace(part.flash, budget_bytes=8192))
    with pytest.raises(BudgetError, match=r"bytes of flash, [\d,]+ more than the 8,192"):
        build_firmware(folder, tiny, tmp_path / "w", compiler="zig")


def image_and_result(tmp_path, steps=2):
    _, folder, x, y = small(tmp_path)
    part, work = board("stm32f746"), tmp_path / "w"
    image: Image = build_firmware(folder, part, work, compiler="zig")
    job = make_job(image.manifest, (x, y), steps, 0.1, 1)
    run = run_image(image, part, "unicorn", job, work, 60)
    return image.manifest, decode(run.result, image.manifest, steps)[0], run


def test_the_first_difference_is_named(tmp_path):
    available("unicorn", "stm32f746")
    manifest, outcome, run = image_and_result(tmp_path)
    assert compare(outcome, outcome, manifest) is None

    def changed(field, at, to):
        values = getattr(outcome, field).copy()
        values.reshape(-1)[at] = to
        return Outcome(**{**vars(outcome), field: values})

    assert "loss of step 2: element 0 is np.float32(9.0)" in compare(
        outcome, changed("losses", 1, 9.0), manifest
    )
    assert "outputs of step 1: element 3" in compare(outcome, changed("logits", 3, 9.0), manifest)
    assert "outputs of the first sample" in compare(outcome, changed("outputs", 0, 9.0), manifest)
    entry = manifest["state"][1]
    said = compare(outcome, changed("state", entry["offset"], 77), manifest)
    assert said.startswith(f"{entry['name']} after training: element 0") and "1 of" in said
    with pytest.raises(BackendError, match="bytes of results"):
        decode(run.result[:-4], manifest, 2)


@pytest.mark.parametrize(
    ("steps", "calls", "samples", "says"),
    [
        (0, 1, np.zeros((4, 9, 7, 3), np.int8), "0 steps"),
        (1, 2, np.zeros((4, 9, 7, 3), np.int8), "compile it with --accumulate"),
        (1, 1, np.zeros((4, 9, 7, 3), np.float32), r"samples are float32\[4, 9, 7, 3\]"),
        (1, 1, np.zeros((4, 9, 8, 3), np.int8), r"samples are int8\[4, 9, 8, 3\]"),
        (1, 1, np.zeros((0, 9, 7, 3), np.int8), "no samples|0 labels"),
    ],
)
def test_data_that_does_not_fit_is_refused(steps, calls, samples, says, tmp_path):
    _, folder, _, _ = small(tmp_path)
    with pytest.raises(DataError, match=says):
        emulate(folder, "stm32f746", (samples, np.zeros(len(samples))), steps, calls_per_update=calls)


def test_labels_outside_the_classes_are_refused(tmp_path):
    _, folder, x, y = small(tmp_path)
    with pytest.raises(DataError, match=r"labels lie in 3\.\.6, the network has classes 0\.\.4"):
        emulate(folder, "stm32f746", (x, y + 3), 4)


def test_a_folder_without_a_program_is_refused(tmp_path):
    with pytest.raises(BackendError, match="holds no trainlet program"):
        emulate(tmp_path, "stm32f746", (np.zeros(1), np.zeros(1)), 1)


def test_unknown_engines_and_compilers_are_refused(tmp_path):
    _, folder, x, y = small(tmp_path)
    with pytest.raises(BackendError, match="no emulator 'renode': choose auto, qemu or unicorn"):
        emulate(folder, "stm32f746", (x, y), 1, engine="renode")
    with pytest.raises(BackendError, match="no compiler 'icc' for boards"):
        emulate(folder, "stm32f746", (x, y), 1, engine="unicorn", compiler="icc")
    lost = replace(board("corstone300"), qemu=None)
    with pytest.raises(BackendError, match=r"no emulator for corstone300: its file has no \[unicorn\]"):
        emulate(folder, lost, (x, y), 1, engine="unicorn")
