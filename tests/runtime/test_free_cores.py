"""How many compilers start at once."""

import os

import pytest

from trainlet.runtime import toolchain


@pytest.mark.parametrize(
    ("cores", "load", "free"), [(2, 0.0, 2), (2, 1.0, 2), (2, 2.2, 1), (8, 3.0, 6), (2, 40.0, 1)]
)
def test_our_own_work_does_not_count_as_load(monkeypatch, cores, load, free):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert toolchain.free_cores() == free
