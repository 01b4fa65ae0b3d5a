"""The picture shows every layer, also where little is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.choose.tasks import dataset
from tests.choose.test_contribution import contributions
from tests.host.programs import network
from trainlet.choose.picture import picture
from trainlet.report.contributions import contributions_line, contributions_table

pytest.importorskip("matplotlib")
FOUND = {
    "base_biases": 2,
    "validation_samples": 100,
    "lr": 0.1,
    "head_lr": 0.2,
    "runs": 7,
    "cpu_seconds": 12.5,
}


def analysis():
    graph = network("residual", True)
    return replace(
        contributions(graph, dataset(graph)), settings=FOUND, correlation={"weights": 0.5, "biases": None}
    )


def test_the_picture_is_written_and_shows_what_is_measured(tmp_path):
    full, bare = tmp_path / "a.png", tmp_path / "b.png"
    assert picture(analysis(), full) == full
    picture(replace(analysis(), fisher={}, weights={}), bare)
    assert full.read_bytes()[:4] == b"\x89PNG" and full.read_bytes() != bare.read_bytes()


def test_the_table_has_a_row_for_each_layer_but_the_head():
    table = contributions_table(analysis())
    cells = [list(column.cells) for column in table.columns]
    assert cells[1] == ["conv1/weight", "conv2/weight", "conv3/weight", "conv4/weight"]
    assert any("+2.0" in cell for cell in cells[4]) and "weights +0.50" in contributions_line(analysis())
