"""What a plan says about groups of hidden channels and streaming: the peak without each of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.host.programs import Net
from trainlet.api import Settings, plan, plan_report
from trainlet.backends.c99 import scratch_bytes
from trainlet.backends.c99.header import plan_table
from trainlet.ir import Graph
from trainlet.passes import OPTIONAL, PASSES
from trainlet.plan.program import Program
from trainlet.plan.program import plan as plan_module
from trainlet.plan.savings import TECHNIQUES
from trainlet.quantize import quantize


@cache
def network() -> Graph:
    """Wide maps that stay frozen, then an inverted residual whose hidden gradients are as large."""
    n = Net("both", (33, 29, 3))
    x = n.conv(n.conv(n.conv(n.x, 8, 3, 2), 96), 96, 3, 2, groups=96)
    x = n.conv(x, 10, act="none")
    x = n.conv(n.conv(n.conv(x, 64), 64, 3, groups=64), 12, act="none")
    calibration = np.random.default_rng(1).normal(0, 1, (16, 33, 29, 3)).astype(np.float32)
    return quantize(n.head(x, 4), calibration)


def program(where: str = "arena", scheme: str = "bias-only:4") -> Program:
    return plan(network(), Settings(scheme=scheme, master="stochastic", input=where))


def peak_without(found: Program, *techniques: str) -> int:
    gone = {p for name in techniques for p in TECHNIQUES[name][0]}
    passes = [p for p in PASSES if p not in gone and p not in OPTIONAL]
    return plan_module(found.module, scratch_bytes, passes=passes).main.lower_bound_bytes


def test_each_technique_states_how_much_higher_the_peak_would_be() -> None:
    found = program()
    peak = found.main.lower_bound_bytes
    assert set(found.saved_bytes) == {*TECHNIQUES, "both"}
    for name in TECHNIQUES:
        assert found.saved_bytes[name] == peak_without(found, name) - peak > 0
    assert found.saved_bytes["both"] == peak_without(found, *TECHNIQUES) - peak


def test_without_streaming_an_image_by_rows_is_in_the_arena() -> None:
    by_rows = program("rows")
    whole = peak_without(by_rows, "streaming by rows")
    assert by_rows.saved_bytes["streaming by rows"] == whole - by_rows.main.lower_bound_bytes > 0


def test_nothing_is_said_of_what_is_not_used() -> None:
    assert program(scheme="head").saved_bytes.keys() <= {"streaming by rows"}


@pytest.mark.parametrize("where", ["arena", "rows"])
def test_report_and_header_carry_the_savings(where: str) -> None:
    found = program(where)
    assert plan_report(found)["saved_bytes"] == found.saved_bytes
    text = "\n".join(plan_table(found))
    assert all(f"saved by {name}: {count:,} bytes" in text for name, count in found.saved_bytes.items())
