"""What a module does that cannot be compiled: everything at once, with module path and line of Python."""

from __future__ import annotations

import pytest

from tests.train.pytorch import torch
from trainlet import load
from trainlet.errors import ModelError
from trainlet.frontends.torch import from_module

nn = torch.nn


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), Sorted())
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(self.inner(x), 1)


class Sorted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x, 1)[0]


class Branches(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        if y.sum() > 0:
            y = y + 1
        if y.max() > 3:
            y = y * 2
        return y


class Counts(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner[0](x)


class Conditional(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (self.inner[0](x),))


class Picks(Network):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner[0](x[x.sum(1) > 0])


def error(module: nn.Module) -> str:
    with pytest.raises(ModelError) as caught:
        from_module(module, torch.zeros(1, 4))
    return str(caught.value)


def test_unsupported_operators_are_listed_with_module_and_line() -> None:
    text = error(Network())
    assert "2 layers" in text
    assert "Network:inner.1: aten.sort.default is not an operator" in text
    assert "test_torch_errors.py:" in text and "return torch.sort(x, 1)[0]" in text
    assert "aten.cumsum.default" in text and "return torch.cumsum(self.inner(x), 1)" in text


def test_branches_on_data_are_listed_with_what_else_is_wrong() -> None:
    text = error(Branches())
    assert "if y.sum() > 0:" in text and "if y.max() > 3:" in text
    assert "aten.sort.default" in text and "torch.where" in text


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Counts, "writes to calls in place"),
        (Conditional, "torch.cond is not an operator trainlet has; use torch.where"),
        (Picks, "depends on data"),
    ],
)
def test_state_control_flow_and_open_sizes_are_refused(module: type[nn.Module], message: str) -> None:
    assert message in error(module())


def test_what_is_not_float32_is_refused() -> None:
    assert "use .float()" in error(nn.Linear(4, 4).half())


def test_the_example_must_be_one_tensor() -> None:
    for wrong in ((torch.zeros(1, 4), torch.zeros(1)), None, "x"):
        with pytest.raises(ModelError, match="one tensor"):
            from_module(nn.Linear(4, 4), wrong)
    with pytest.raises(ModelError, match=r"load\(module, torch.zeros"):
        load(nn.Linear(4, 4))


def test_the_module_is_left_in_its_mode() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).train()
    module[1].eval()
    load(module, torch.zeros(3, 4))
    assert [m.training for m in module.modules()] == [True, True, False, True]
