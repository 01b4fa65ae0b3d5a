"""A module is recognised by its content, and anything that could change what it computes changes its key."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from trainlet.compiled.module_key import module_key  # noqa: E402
from trainlet.compiled.read_module import read_module  # noqa: E402

X = torch.zeros(2, 3, 6, 6)


class Net(torch.nn.Module):
    def __init__(self, scale: float = 1.0, act: Any = torch.relu) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
        self.head, self.scale, self.act = torch.nn.Linear(4, 2), scale, act

    def forward(self, x: Any) -> Any:
        return self.head(self.act(self.norm(self.conv(x)) * self.scale).mean((2, 3)))


def key(module: Any, x: Any = X, norm: str = "folded") -> str | None:
    return module_key(module, x, norm)


def test_the_same_module_has_the_same_key() -> None:
    assert key(Net()) == key(copy.deepcopy(Net())) is not None
    assert key(Net().train()) == key(Net().eval())  # it is exported in evaluation mode either way


def changed(change: str) -> Any:
    net = Net(2.0 if change == "an attribute" else 1.0, torch.tanh if change == "a function" else torch.relu)
    with torch.no_grad():
        if change == "a weight":
            net.conv.weight[0, 0, 0, 0] += 1e-6
        elif change == "a buffer":
            net.norm.running_mean[1] = 0.5
    if change == "a stride":
        net.conv.stride = (2, 2)
    return net


@pytest.mark.parametrize("change", ["an attribute", "a function", "a weight", "a buffer", "a stride"])
def test_every_change_changes_the_key(change: str) -> None:
    assert key(changed(change)) not in (key(Net()), None)


def test_the_inputs_shape_and_the_normalisation_count() -> None:
    assert len({key(Net()), key(Net(), X[:, :, :5]), key(Net(), norm="batch")}) == 3


def test_what_cannot_be_told_has_no_key() -> None:
    size = 3.0
    assert key(Net(act=lambda x: x * size)) is None  # a closure
    assert key(Net(scale=torch.ones(1))) is None  # a tensor that is no parameter or buffer


def test_a_network_that_was_read_before_is_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    first, origin = read_module(Net(), X, "folded")
    monkeypatch.setattr("trainlet.compiled.read_module.from_module_with_origin", None)  # not called again
    again, other = read_module(Net(), X, "folded")
    assert again == first
    assert {k: v.tobytes() for k, v in origin.state.items()} == {
        k: v.tobytes() for k, v in other.state.items()
    }
    assert [vars(s) for s in origin.stored] == [vars(s) for s in other.stored]
