"""A power cut in any operation of a save leaves the old state or the new one; weaker stores do not pass."""

import json

import pytest

from tests.runtime_c.build import SANITIZE, power_cut_program, run

# (programming unit, bytes of state): lengths that do and do not fill the last unit.
SIZES = [(1, 60), (4, 333), (8, 333), (8, 512), (32, 500), (256, 700), (12, 100)]

HEADER_LAST = """  tl_store_status status = write_payload(flash, slot, &made, src);
  if (status == TL_STORE_OK) status = write_header(flash, slot, &made, model);
"""
HEADER_FIRST = """  tl_store_status status = write_header(flash, slot, &made, model);
  if (status == TL_STORE_OK) status = write_payload(flash, slot, &made, src);
"""
TRUST_THE_PAYLOAD = ("  return found == crc;\n", "  (void)crc;\n  return 1;\n")
SINGLE_SLOT = ("  if (keep >= 0) return 1 - keep;\n", "  if (keep >= 0) return keep;\n")
NEWEST_FIRST = ("  const int first = next_slot(s);\n", "  const int first = 1 - next_slot(s);\n")


def sweep(program, unit, length):
    return json.loads(run([program, str(unit), str(length)]))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return power_cut_program(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize(("unit", "length"), SIZES)
def test_no_cut_loses_or_corrupts_the_state(program, unit, length):
    seen = sweep(program, unit, length)
    assert seen["lost"] == seen["corrupt"] == seen["early"] == seen["stuck"] == 0, seen
    assert seen["old"] > 100 and seen["new"] > 100, seen
    assert seen["old"] + seen["new"] == seen["cases"]


def test_sanitizers_are_silent_through_the_sweep(tmp_path):
    program = power_cut_program(tmp_path, flags=("-O1", *SANITIZE))
    assert sweep(program, 8, 100)["lost"] == 0
    assert sweep(program, 256, 700)["lost"] == 0


@pytest.mark.parametrize(
    ("name", "edit", "fault"),
    [
        ("a header before its payload", [(HEADER_LAST, HEADER_FIRST)], "early"),
        ("a header first, payload not checked", [(HEADER_LAST, HEADER_FIRST), TRUST_THE_PAYLOAD], "lost"),
        ("a single slot", [SINGLE_SLOT], "lost"),
        ("a reset that erases the newest first", [NEWEST_FIRST], "corrupt"),
    ],
)
def test_the_sweep_catches(name, edit, fault, tmp_path):
    """`early`: a cut while programming left a header over half a payload, which only the CRC gives away."""
    seen = sweep(power_cut_program(tmp_path, edit), 8, 333)
    assert seen[fault] > 0, seen
