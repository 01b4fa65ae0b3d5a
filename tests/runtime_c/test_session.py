"""The session on a real emitted int8 network: replay, held-back samples, commit or roll back, reboot."""

import ctypes
import re

import numpy as np
import pytest

from tests.runtime_c.build import SOURCES, Nor
from tests.runtime_c.device import (
    BAD_LABEL,
    CLASSES,
    COMMITTED,
    HELD_BACK,
    NO_MEMORY,
    NOT_SAVED,
    NOTHING_NEW,
    OK,
    ROLLED_BACK,
    TOO_FEW,
    Device,
    Firmware,
)  # fmt: skip

STORE_OK, STORE_EMPTY, STORE_OTHER_MODEL = range(3)
ALL = list(range(CLASSES))


@pytest.fixture(scope="module")
def firmware(tmp_path_factory):
    return Firmware(tmp_path_factory.mktemp("firmware"))


@pytest.fixture(scope="module")
def accumulating(tmp_path_factory):
    return Firmware(tmp_path_factory.mktemp("accumulating"), accumulate=True)


@pytest.fixture(scope="module")
def floating(tmp_path_factory):
    return Firmware(tmp_path_factory.mktemp("floating"), int8=False)


def shuffled(labels, seed=0):
    """Every label wrong."""
    return (labels + np.random.default_rng(seed).integers(1, CLASSES, len(labels))).astype(np.int32) % CLASSES


def test_statuses_here_are_those_of_the_header(firmware):
    body = re.search(
        r"typedef enum \{([^}]*)\} tl_session_status", (SOURCES / "session.h").read_text()
    ).group(1)
    names = re.findall(r"TL_SESSION_(\w+),?\s", re.sub(r"/\*.*?\*/", "", body) + "\n")
    assert [globals()[n] for n in names] == list(range(9))
    words = {firmware.library.tl_session_words(i) for i in range(9)}
    assert len(words) == 9 and firmware.library.tl_session_words(9) == b"unknown status"


@pytest.mark.parametrize("in_place", [True, False])
def test_memory_is_what_the_formula_says_and_not_a_byte_more(firmware, in_place):
    device = Device(firmware, in_place=in_place, **firmware.keep(7, 5), replays=1, held_per_256=100)
    state, larger = firmware.program.bytes["state"], max(firmware.step_boundary, firmware.predict_boundary)
    base = -(-state // 4) * 4 * (1 if in_place else 2) + -(-larger // 4) * 4 + 28 * CLASSES
    assert device.bytes == base + sum(firmware.keep(7, 5).values())
    assert device.stored()[0] == 7 and device.stored(True)[0] == 5
    device.learn_all(*firmware.data(60, ALL, 1))
    device.judge()
    assert (device.memory[device.bytes // 4 :] == 0xA5A5A5A5).all()


def test_too_little_or_misaligned_memory_is_refused(firmware):
    device = Device(firmware, **firmware.keep(4, 4))
    start, loaded = device.memory.ctypes.data, ctypes.c_int()
    for at, size in [(start, device.bytes - 1), (start + 2, device.bytes)]:
        status = device.library.driver_open(
            device.at, ctypes.byref(device.config), 1, ctypes.c_void_p(at), size, ctypes.byref(loaded)
        )
        assert status == NO_MEMORY


def test_bytes_that_hold_no_whole_sample_hold_none(firmware):
    device = Device(firmware, replay_bytes=firmware.step_boundary, held_bytes=3, replays=2, held_per_256=128)
    assert device.stored()[0] == device.stored(True)[0] == 0
    device.learn_all(*firmware.data(20, ALL, 1))
    assert device.rehearse(5) == 0 and device.judge() == TOO_FEW


def test_a_label_that_is_no_class_changes_nothing(firmware):
    device = Device(firmware, **firmware.keep(4, 4))
    x, _ = firmware.data(1, ALL, 1)
    before = device.state()
    for label in (-1, CLASSES, 2**30):
        assert device.learn(x[0], label)[0] == device.hold(x[0], label) == BAD_LABEL
    assert device.state() == before and device.stored()[1] == [0] * CLASSES


def test_learning_answers_before_it_learns(firmware):
    device = Device(firmware, **firmware.keep(8, 8), replays=2, held_per_256=64)
    statuses = set()
    for sample, label in zip(*firmware.data(40, ALL, 1)):
        before = device.program_predict(sample)
        assert np.array_equal(device.predict(sample), before)
        status, out = device.learn(sample, label)
        assert np.array_equal(out, before)
        statuses.add(status)
    assert statuses == {OK, HELD_BACK}


def test_held_back_samples_are_not_trained_on(firmware):
    device = Device(firmware, **firmware.keep(8, 8), replays=2, held_per_256=256)
    before = device.state()
    device.learn_all(*firmware.data(20, ALL, 1))
    assert device.state() == before and device.stored()[1] == [0] * CLASSES and device.judge() == NOTHING_NEW


def test_the_share_held_back_is_as_configured(firmware):
    device = Device(firmware, **firmware.keep(1, 1000), held_per_256=64)
    device.learn_all(*firmware.data(1000, ALL, 1), lr=0)
    assert 200 < sum(device.stored(True)[1]) < 300


def test_rare_classes_keep_their_place_in_the_reservoirs(firmware):
    device = Device(firmware, **firmware.keep(25, 25), held_per_256=96)
    rng = np.random.default_rng(5)
    for label in rng.choice(ALL, 1500, p=[0.9, 0.04, 0.03, 0.02, 0.01]):
        x, y = firmware.data(1, [int(label)], int(rng.integers(1 << 30)))
        device.learn(x[0], y[0], 0.0)
    for held in (False, True):
        capacity, counts = device.stored(held)
        assert capacity == 25 and sum(counts) == 25
        assert min(counts) >= 4 and max(counts) <= 6, counts
        assert np.bincount(device.kept(held)[0], minlength=CLASSES).tolist() == counts


def test_the_kept_samples_of_a_class_are_a_uniform_choice(firmware):
    """Mean position in the stream: 199.5 +- 115.5 / sqrt(10 * 60) = 4.7 were it exactly uniform."""
    x, _ = firmware.data(400, [2], 1)
    rows, positions = None, []
    for seed in range(60):
        device = Device(firmware, seed=seed, **firmware.keep(0, 10))
        if rows is None:
            everything = Device(firmware, **firmware.keep(0, 400))
            for sample in x:
                everything.hold(sample, 2)
            rows = {row.tobytes(): i for i, row in enumerate(everything.kept(True)[1])}
        for sample in x:
            device.hold(sample, 2)
        positions += [rows[row.tobytes()] for row in device.kept(True)[1]]
    assert len(rows) == 400 and len(positions) == 600
    assert abs(np.mean(positions) - 199.5) < 5 * 4.7
    assert len(set(positions)) > 280


def two_phases(firmware, seed, repeat=1, **config):
    """Accuracy on the classes of phase 1 after phase 1, after phase 2, and on those of phase 2."""
    device = Device(firmware, seed=seed, **config)
    first, second = firmware.data(200, [0, 1, 2], 100 + seed), firmware.data(200, [3, 4], 200 + seed)
    device.learn_all(*first)
    old, new = firmware.data(150, [0, 1, 2], 300 + seed), firmware.data(100, [3, 4], 400 + seed)
    before = device.accuracy(*old)
    for _ in range(repeat):
        device.learn_all(*second)
    return before, device.accuracy(*old), device.accuracy(*new)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_replay_prevents_forgetting(firmware, seed):
    """Ten kilobytes of replay against none, the latter with as many updates in phase 2."""
    learned, forgot, new = two_phases(firmware, seed, repeat=3)
    assert learned > 0.9 and new > 0.9
    with_replay = two_phases(firmware, seed, **firmware.keep(20, 0), replays=2)
    assert firmware.keep(20, 0)["replay_bytes"] <= 10240
    assert with_replay[0] > 0.9 and with_replay[2] > 0.9
    assert with_replay[1] > 0.85 and with_replay[1] > forgot + 0.3, (forgot, with_replay)


def trained(firmware, flash=None, **config):
    """A device that has learned the task and committed it."""
    sizes = firmware.keep(40, 80)
    device = Device(
        firmware, flash, **{**sizes, "replays": 2, "held_per_256": 64, "least_held": 10, **config}
    )
    device.learn_all(*firmware.data(400, ALL, 1))
    assert device.judge() == COMMITTED
    return device


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_wrong_labels_are_rolled_back_to_the_same_bits(firmware, seed, in_place):
    flash, test = Nor(), firmware.data(200, ALL, 9)
    device = trained(firmware, flash, seed=seed, in_place=in_place, replays=0)
    committed, accuracy = device.state(), device.accuracy(*test)
    slots, kept = [bytes(s) for s in flash.slots], [device.kept(h) for h in (False, True)]
    x, y = firmware.data(150, ALL, 2)
    device.learn_all(x, shuffled(y))
    assert device.state() != committed
    assert device.accuracy(*test) < accuracy - 0.2
    assert device.judge() == ROLLED_BACK
    assert device.report.now.older_right < device.report.committed.older_right
    assert device.state() == committed and device.accuracy(*test) == accuracy > 0.9
    assert [bytes(s) for s in flash.slots] == slots
    for held, (_, rows) in zip((False, True), kept):
        labels, left = device.kept(held)
        assert {r.tobytes() for r in left} <= {r.tobytes() for r in rows}
        assert np.bincount(labels, minlength=CLASSES).tolist() == device.stored(held)[1]


def test_labels_that_are_consistently_wrong_are_caught_by_the_older_samples(firmware):
    """The network learns the wrong labels, so that it is right on the samples held back with them."""
    device = trained(firmware, replays=0)
    committed = device.state()
    x, y = firmware.data(600, ALL, 2)
    device.learn_all(x, (y + 1) % CLASSES)
    count, right, older, older_right = device.evaluate()
    assert older_right < 0.3 * older and right - older_right > 0.8 * (count - older)
    assert device.judge() == ROLLED_BACK and device.state() == committed


def test_what_older_samples_may_lose_is_configured(firmware):
    for allowed, verdict in [(0, ROLLED_BACK), (256, COMMITTED)]:
        device = trained(firmware, replays=0, older_loss_per_256=allowed)
        x, y = firmware.data(600, ALL, 2)
        device.learn_all(x, (y + 1) % CLASSES)
        assert device.judge() == verdict
        now, committed = device.report.now, device.report.committed
        assert now.right > committed.right and now.older_right < committed.older_right


def test_harm_is_caught_and_good_periods_are_kept_in_most_cases(firmware):
    """Judging by 80 samples is a statistic. A period harms where it costs more than 0.05 of accuracy."""
    test, harmful, caught, kept = firmware.data(200, ALL, 9), 0, 0, 0
    for seed in range(20):
        good, bad = (trained(firmware, seed=seed) for _ in range(2))
        good.learn_all(*firmware.data(100, ALL, 3000 + seed))
        kept += good.judge() == COMMITTED
        before = bad.accuracy(*test)
        x, y = firmware.data(100, ALL, 2000 + seed)
        bad.learn_all(x, shuffled(y, seed))
        harm = bad.accuracy(*test) < before - 0.05
        harmful += harm
        caught += harm and bad.judge() == ROLLED_BACK
    assert harmful >= 12 and caught >= 0.85 * harmful, (harmful, caught)
    assert kept >= 10, kept


def test_after_a_roll_back_good_samples_are_learned_again(firmware):
    device = trained(firmware)
    x, y = firmware.data(150, ALL, 2)
    device.learn_all(x, shuffled(y))
    assert device.judge() == ROLLED_BACK and device.judge() == NOTHING_NEW
    device.learn_all(*firmware.data(150, ALL, 3))
    assert device.judge() == COMMITTED
    assert device.accuracy(*firmware.data(200, ALL, 9)) > 0.9
    assert min(device.stored()[1]) >= 6 and min(device.stored(True)[1]) >= 4


def test_no_class_stays_out_after_all_its_samples_were_dropped(firmware):
    device = Device(firmware, **firmware.keep(10, 10))
    device.learn_all(*firmware.data(20, [0], 1))
    device.roll_back()
    assert device.stored()[1] == [0] * CLASSES
    device.learn_all(*firmware.data(20, [1], 2))
    device.learn_all(*firmware.data(20, [0], 3))
    assert device.stored()[1][:2] == [5, 5]


def test_samples_known_to_be_right_survive_a_roll_back(firmware):
    device = Device(firmware, **firmware.keep(20, 20), replays=1, least_held=20)
    good = firmware.data(20, ALL, 4)
    for sample, label in zip(*good):
        assert device.hold(sample, label) == OK
    device.learn_all(*firmware.data(150, ALL, 1))
    assert device.judge() == COMMITTED
    x, y = firmware.data(100, ALL, 2)
    device.learn_all(x, shuffled(y))
    assert device.judge() == ROLLED_BACK and device.report.now.count == 20
    assert np.array_equal(device.kept(True)[0], good[1])


def explode(firmware, lr, held):
    """(device after steps with that learning rate, its committed state)."""
    device = Device(firmware, Nor(), **firmware.keep(4, 30), replays=1, least_held=30)
    for sample, label in zip(*firmware.data(held, ALL, 4)):
        device.hold(sample, label)
    device.learn_all(*firmware.data(60, ALL, 1), lr=0.02)
    assert device.commit() == COMMITTED
    committed = device.state()
    device.learn_all(*firmware.data(5, ALL, 2), lr=lr)
    return device, committed


@pytest.mark.parametrize("held", [0, 30])
@pytest.mark.parametrize("lr", [1e20, 1e30])
def test_float_weights_that_are_no_numbers_go_back_even_with_nothing_to_judge_by(floating, lr, held):
    device, committed = explode(floating, lr, held)
    assert device.judge() == ROLLED_BACK and device.state() == committed
    assert np.isfinite(device.predict(floating.data(1, ALL, 1)[0][0])).all()


def test_saturated_integer_weights_are_judged_worse(firmware):
    device, committed = explode(firmware, 1e30, 30)
    assert device.judge() == ROLLED_BACK and device.state() == committed


def test_too_few_held_back_samples_decide_nothing(firmware):
    device = Device(firmware, Nor(), **firmware.keep(8, 8), replays=1, held_per_256=8, least_held=8)
    device.learn_all(*firmware.data(20, ALL, 1))
    state = device.state()
    assert device.judge() == TOO_FEW and device.state() == state
    assert device.flash.operations == []
    assert device.commit() == COMMITTED and device.report.store == STORE_OK
    assert Device(firmware, device.flash).state() == state


def test_both_states_are_judged_on_the_same_samples(firmware):
    device = trained(firmware)
    device.learn_all(*firmware.data(100, ALL, 5))
    score, state = device.evaluate(), device.state()
    kept = (device.judge() == COMMITTED) == (device.state() == state)
    now, committed = device.report.now, device.report.committed
    assert kept and now.all() == score and (committed.count, committed.older) == (now.count, now.older)
    assert 0 < now.older < now.count


def test_what_is_committed_is_there_after_a_reboot(firmware):
    flash = Nor(32, 8192)
    device = trained(firmware, flash)
    assert device.loaded == STORE_EMPTY
    committed = device.state()
    device.learn_all(*firmware.data(30, ALL, 7))
    again = Device(firmware, flash, **firmware.keep(4, 4))
    assert again.loaded == STORE_OK and again.state() == committed
    other = Device(firmware, flash, model=5, **firmware.keep(4, 4))
    assert other.loaded == STORE_OTHER_MODEL and other.state() == Device(firmware).state()


def test_a_failing_flash_is_told_and_tried_again(firmware):
    flash = Nor()
    device = trained(firmware, flash)
    first = device.state()
    flash.broken = {"program"}
    device.learn_all(*firmware.data(60, ALL, 8), lr=0.001)
    second = device.state()
    assert device.commit() == NOT_SAVED and device.report.store != STORE_OK
    assert device.judge() == NOT_SAVED and device.state() == second
    assert Device(firmware, flash).state() == first
    flash.broken = set()
    assert device.judge() == COMMITTED and device.judge() == NOTHING_NEW
    assert Device(firmware, flash).state() == second


def run_all(firmware, seed, in_place=True):
    device = Device(
        firmware, seed=seed, in_place=in_place, **firmware.keep(15, 15), replays=3, held_per_256=64
    )
    for period in range(4):
        x, y = firmware.data(60, ALL, period)
        device.learn_all(x, shuffled(y) if period == 2 else y)
        device.rehearse(5)
        device.judge()
    return device.state(), *(row.tobytes() for held in (False, True) for row in device.kept(held))


def test_the_same_calls_give_the_same_bits(firmware):
    once = run_all(firmware, 1)
    assert run_all(firmware, 1) == once
    assert run_all(firmware, 1, in_place=False) == once
    assert run_all(firmware, 2) != once


def test_a_program_that_accumulates_learns_commits_and_rolls_back(accumulating):
    device = Device(accumulating, **accumulating.keep(40, 40), replays=3, held_per_256=64, least_held=10)
    device.learn_all(*accumulating.data(300, ALL, 1), lr=0.1)
    assert device.judge() == COMMITTED
    test, committed = accumulating.data(200, ALL, 9), device.state()
    assert device.accuracy(*test) > 0.9
    x, y = accumulating.data(200, ALL, 2)
    device.learn_all(x, shuffled(y), lr=0.1)
    assert device.judge() == ROLLED_BACK and device.state() == committed


@pytest.mark.parametrize("place", ["caller", "rows"])
def test_a_session_takes_samples_from_where_they_are(firmware, place, tmp_path):
    """The same states as with samples copied to the arena; the store knows them as the same network's."""
    other, states, flash = Firmware(tmp_path, place=place), [], Nor(slot_size=8192)
    x, y = firmware.data(40, ALL, 3)
    for chosen in (firmware, other):
        device = Device(chosen, Nor(slot_size=8192), replays=2, held_per_256=32, **chosen.keep(8, 8))
        device.learn_all(x, y)
        assert device.judge() in (COMMITTED, ROLLED_BACK)
        assert np.array_equal(device.predict(x[0]), device.program_predict(x[0]))
        states.append(device.state())
    assert states[0] == states[1]
    saved = Device(firmware, flash)
    saved.learn_all(x, y)
    assert saved.commit() == COMMITTED
    loaded = Device(other, flash)
    assert loaded.loaded == STORE_OK and loaded.state() == saved.state()
