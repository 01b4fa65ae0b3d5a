from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainlet.errors import GraphError
from trainlet.ir.ops import OPS
from trainlet.ir.ops.table import op, same


def test_every_op_has_a_test_against_an_independent_expression() -> None:
    sources = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_ops_*.py"))
    untested = [
        name
        for name in OPS
        if f'"{name}"' not in sources and f'"{name.removesuffix("Grad")}": ' not in sources
    ]
    assert not untested


def test_in_place_operands_exist() -> None:
    for row in OPS.values():
        assert all(i < row.operands[1] for operands in row.inplace.values() for i in operands), row.name


def test_an_op_is_registered_once() -> None:
    with pytest.raises(GraphError, match="Add is registered twice"):
        op("Add", same(0), 2)(lambda call: np.add(call[0], call[1]))
