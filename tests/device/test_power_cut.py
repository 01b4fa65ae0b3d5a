"""The power goes while a board saves: it boots, resumes, and ends in the bits of an unbroken run."""

import shutil
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.device.programs import ENGINES, available, small
from tests.runtime_c.build import SOURCES
from tests.runtime_c.test_store_power_cuts import HEADER_FIRST, HEADER_LAST, SINGLE_SLOT, TRUST_THE_PAYLOAD
from trainlet.device import board, build_firmware, power_cuts
from trainlet.device.emulate import make_job, run_host_saving
from trainlet.device.engine import FLASH_FILE
from trainlet.device.power_cut import TEARS, Bench
from trainlet.errors import DataError

# tl_store_status, as tl_store_words says it.
STATUS = {1: "nothing is saved yet", 2: "belongs to another model", 3: "the saved state is damaged"}


def program(folder, scheme="head", **settings):
    _, folder, x, y = small(folder, "perceptron", True, scheme=scheme, **settings)
    return folder, x, y


def operations_of_a_save(state_bytes, unit):
    return 1 + -(-state_bytes // unit) + -(-28 // unit)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cut_costs_the_steps_since_the_last_record_and_no_bit(engine, tmp_path):
    """In the second save: its erase, the middle of its payload, the header's last unit."""
    available(engine, "stm32f746")
    folder, x, y = program(tmp_path)
    size = power_cuts(folder, "stm32f746", (x, y), 1, [], engine=engine).state_bytes
    each = operations_of_a_save(size, board("stm32f746").program_unit)
    cuts = [each, each + each // 2, 2 * each - 1]
    seen = power_cuts(folder, "stm32f746", (x, y), 6, cuts, save_every=2, engine=engine, lr=0.05)
    assert seen.operations == 3 * each
    assert seen.passed and seen.first_failure == ""
    assert seen.boots == 2 * len(cuts) * len(TEARS)
    assert seen.old + seen.new == len(cuts) * len(TEARS) and seen.new >= 1 and seen.old >= 2 * len(TEARS)
    assert seen.steps_done_again == 2


def test_a_cut_in_the_first_save_leaves_the_factory_state(tmp_path):
    available("unicorn", "esp32c3")
    folder, x, y = program(tmp_path)
    seen = power_cuts(folder, "esp32c3", (x, y), 1, [3], engine="unicorn")
    assert seen.passed and seen.old == seen.boots // 2 and seen.steps_done_again == 1


def test_both_emulators_see_the_same_cuts(tmp_path):
    available("unicorn", "nrf52840")
    available("qemu", "nrf52840")
    folder, x, y = program(tmp_path, master="stochastic", accumulate=True)
    settings = {"save_every": 2, "calls_per_update": 2}
    a, b = (power_cuts(folder, "nrf52840", (x, y), 4, [50], engine=e, **settings) for e in ENGINES)
    assert a.passed and vars(a) | {"engine": ""} == vars(b) | {"engine": ""}


@pytest.mark.parametrize(
    ("name", "edit", "fault"),
    [
        ("a header first, payload not checked", [(HEADER_LAST, HEADER_FIRST), TRUST_THE_PAYLOAD], "lost"),
        ("a single slot", [SINGLE_SLOT], "lost"),
    ],
)
def test_a_weaker_store_is_caught_on_the_board(name, edit, fault, tmp_path):
    """The firmware takes the store from its own package: here one that is wrong."""
    available("unicorn", "stm32f746")
    folder, x, y = program(tmp_path)
    shutil.copytree(SOURCES, folder / "runtime", dirs_exist_ok=True)
    source = (folder / "runtime" / "store.c").read_text()
    for text, replacement in edit:
        assert source.count(text) == 1
        source = source.replace(text, replacement)
    (folder / "runtime" / "store.c").write_text(source)
    size = power_cuts(folder, "stm32f746", (x, y), 1, [], engine="unicorn").state_bytes
    each = operations_of_a_save(size, board("stm32f746").program_unit)
    seen = power_cuts(folder, "stm32f746", (x, y), 2, [each + each // 2], engine="unicorn")
    assert getattr(seen, fault) > 0 and not seen.passed
    assert seen.first_failure.startswith(f"operation {each + each // 2}, torn (")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("on", ["stm32f207", "rp2350", "esp32c3"])
def test_cuts_on_every_kind_of_core(on, engine, tmp_path):
    available(engine, on)
    folder, x, y = program(tmp_path)
    seen = power_cuts(folder, on, (x, y), 2, 1, engine=engine)
    assert seen.passed, seen.first_failure


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"save_every": 3}, "a save every 3 steps of 2 saves nothing"),
        ({"save_every": 1, "calls_per_update": 2}, "half-summed gradients: give a multiple of the 2 calls"),
    ],
)
def test_saves_that_make_no_sense_are_refused(settings, says, tmp_path):
    available("unicorn", "stm32f746")
    folder, x, y = program(tmp_path, accumulate=True)
    with pytest.raises(DataError, match=says):
        power_cuts(folder, "stm32f746", (x, y), 2, 1, engine="unicorn", **settings)


def test_a_cut_behind_the_last_operation_is_refused(tmp_path):
    available("unicorn", "stm32f746")
    folder, x, y = program(tmp_path)
    with pytest.raises(DataError, match=r"there is no flash operation 9999: the run has \d+"):
        power_cuts(folder, "stm32f746", (x, np.asarray(y)), 1, [9999], engine="unicorn")


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("payload", "the saved state is damaged"),
        ("model", "belongs to another model"),
        ("all", "nothing is saved yet"),
    ],
)
def test_a_record_that_is_no_good_leaves_the_factory_state(what, status, tmp_path):
    """Both damaged, of another model, or overwritten: the board says which, and trains from the start."""
    available("unicorn", "stm32f746")
    folder, x, y = program(tmp_path / "program")
    part, work = board("stm32f746"), tmp_path / "work"
    image = build_firmware(folder, part, work, keeps=True)
    job = replace(make_job(image.manifest, (x, y), 2, 0.05, 1), save_every=1)
    bench = Bench(image, part, "unicorn", work, 60, job)
    host, saved = run_host_saving(folder, part, job)
    bench.erase()
    bench.boot()
    flash = bytearray((work / FLASH_FILE).read_bytes())
    for slot in (0, len(flash) // 2):
        if what == "payload":
            flash[slot + 40] ^= 1
        elif what == "model":
            header = bytearray(flash[slot : slot + 24])
            header[8] ^= 1
            flash[slot : slot + 28] = header + zlib.crc32(header).to_bytes(4, "little")
        else:
            flash[slot : slot + len(flash) // 2] = bytes(len(flash) // 2)
    (work / FLASH_FILE).write_bytes(flash)
    again = bench.boot()
    assert STATUS[again.status] == status and again.first == 0
    assert again.begun.tobytes() == saved[0].tobytes() and again.state.tobytes() == host.state.tobytes()
