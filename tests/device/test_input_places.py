"""A sample that comes by rows, or stays with the firmware, on an emulated board: the bits of the host."""

import numpy as np
import pytest

from tests.device.programs import ENGINES, available
from tests.host.programs import deep, samples
from trainlet import api
from trainlet.device import emulate


def compiled(folder, place, **settings):
    graph = deep(2, 5)
    given = api.Settings(scheme="last:1", master="stochastic", input=place, **settings)
    api.emit(graph, given, folder, board="stm32f746")
    return samples(graph, 4), np.arange(4, dtype=np.int32)


@pytest.mark.parametrize("settings", [{}, {"batch": 2}, {"accumulate": True}])
def test_images_by_rows_give_the_bits_of_the_host(settings, tmp_path):
    available("unicorn", "stm32f746")
    data = compiled(tmp_path, "rows", **settings)
    calls = 2 if settings.get("accumulate") else 1
    report = emulate(tmp_path, "stm32f746", data, 3, lr=0.05, calls_per_update=calls, engine="unicorn")
    assert report.identical, report.difference
    assert report.memory.sample_bytes == 0


def test_ram_of_the_three_places(tmp_path):
    """By rows there is no image anywhere; the caller's is a buffer of the firmware's."""
    available("unicorn", "stm32f746")
    found = {}
    for place in api.INPUTS:
        data = compiled(tmp_path / place, place)
        found[place] = emulate(tmp_path / place, "stm32f746", data, 1, engine="unicorn")
        assert found[place].identical, found[place].difference
    image = 33 * 29 * 3
    memory = {place: report.memory for place, report in found.items()}
    assert [memory[p].sample_bytes for p in api.INPUTS] == [0, -(-image // 4) * 4, 0]
    assert memory["rows"].ram_bytes < memory["arena"].ram_bytes - 1000
    assert memory["arena"].ram_bytes < memory["caller"].ram_bytes


def test_both_emulators_count_the_same_by_rows(tmp_path):
    available("qemu", "stm32f746")
    available("unicorn", "stm32f746")
    data = compiled(tmp_path, "rows")
    a, b = (emulate(tmp_path, "stm32f746", data, 2, engine=engine, compiler="gcc") for engine in ENGINES)
    assert a.predict == b.predict and a.steps == b.steps and a.memory == b.memory
