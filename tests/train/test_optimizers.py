"""Optimizers against torch.optim, several steps in a row."""

from __future__ import annotations

import numpy as np
import pytest

from tests.train.networks import Net, case
from tests.train.pytorch import torch
from trainlet.errors import SchemeError
from trainlet.ir import interpret
from trainlet.train import Optimizer

RATES = (0.1, 0.05, 0.2, 0.01)


def theirs(rule: str, decay: float, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    if rule == "adamw":
        return torch.optim.AdamW(parameters, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    return torch.optim.SGD(parameters, momentum=0.7 if rule == "momentum" else 0.0, weight_decay=decay)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_optimizer_agrees_with_pytorch(rule: str, decay: float) -> None:
    net = Net((3, 4), 11)
    given = case(net.build([net.operand("head", 2)]), 11)
    ours = Optimizer(rule, momentum=0.7, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=decay)
    step = given.derive(ours).functions["step"]
    data = [torch.tensor(given.graph.constants[f"head/{k}"].data) for k in ("weight", "bias")]
    w, b = (t.clone().requires_grad_() for t in data)
    optimizer, state = theirs(rule, decay, [w, b]), {}
    x, target = (torch.tensor(given.feeds[k], dtype=torch.float32) for k in ("x", "label"))
    for rate in RATES:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(x @ w.T + b, target).backward()
        optimizer.step()
        state = interpret(step, {**given.feeds, "lr": np.full(1, rate)}, state).state
        np.testing.assert_allclose(state["head/weight.trained"], w.detach().numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state["head/bias.trained"], b.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule, slots", [("sgd", set()), ("momentum", {"m"}), ("adamw", {"m", "v"})])
def test_optimizer_keeps_only_its_slots(rule: str, slots: set[str]) -> None:
    net = Net((3, 4))
    module = case(net.build([net.operand("head", 2)])).derive(Optimizer(rule))
    assert all(set(p.tensors) == {"w"} | slots for p in module.parameters)


def test_steps_are_counted_only_where_something_reads_the_count() -> None:
    net = Net((3, 4))
    given = case(net.build([net.operand("head", 2)]))
    assert "rng" not in given.derive(Optimizer("momentum")).functions["step"].state
    run = interpret(given.derive(Optimizer("adamw", seed=9)).functions["step"], given.feeds)
    assert run.state["rng"].tolist() == [9, 1]


def test_adamw_refuses_integer_masters() -> None:
    from tests.train.int8_networks import Int8Net

    net = Int8Net((1, 2, 2, 3))
    given = case(net.scored(net.conv(net.x, 2, "a")))
    with pytest.raises(SchemeError, match="--master fp32"):
        given.derive(Optimizer("adamw", "residual"))
