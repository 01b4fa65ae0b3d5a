"""A PyTorch module is compiled, trained, and takes its weights back."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

import trainlet

torch = pytest.importorskip("torch")
X = torch.from_numpy(np.random.default_rng(0).normal(size=(24, 3, 8, 8)).astype(np.float32))
Y = torch.from_numpy(np.arange(24) * 7 % 4)


def net() -> object:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4),
    ).eval()  # fmt: skip


def test_four_lines_adapt_a_module() -> None:
    model = net()
    program = trainlet.compile(model, X[:4])
    result = program.fit((X, Y), epochs=20, lr=0.1)
    model.load_state_dict(program.state_dict())  # type: ignore[attr-defined]
    with torch.no_grad():
        outputs = model(X).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(outputs, program.predict(X), rtol=1e-3, atol=1e-4)
    assert result.loss[-1] < result.loss[0]


def test_a_few_steps_are_those_of_pytorch() -> None:
    model = net()
    program = trainlet.compile(model, X[:4], batch=8)
    reference = copy.deepcopy(model)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.02)  # type: ignore[attr-defined]
    # Frozen normalisation that is folded trains the folded weight; a rate that small shows no difference.
    rate = 1e-4
    optimizer.param_groups[0]["lr"] = rate
    for i in range(3):
        x, y = X[8 * i : 8 * i + 8], Y[8 * i : 8 * i + 8]
        loss = torch.nn.functional.cross_entropy(reference(x), y)  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert program.step(x, y, rate) == pytest.approx(loss.item(), rel=1e-4)


def test_a_saved_program_knows_the_modules_names(tmp_path: Path) -> None:
    model = net()
    program = trainlet.compile(model, X[:4], scheme="last:2", budget="1MB")
    program.fit((X, Y), epochs=1)
    again = trainlet.load_program(program.save(tmp_path / "net.trainlet"))
    ours, theirs = program.state_dict(), again.state_dict()
    assert list(ours) == list(model.state_dict())  # type: ignore[attr-defined]
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert torch.equal(ours["0.weight"], model.state_dict()["0.weight"])  # type: ignore[attr-defined]
    assert again.step(X[:4], Y[:4]) == program.step(X[:4], Y[:4])


def test_the_classifier_takes_a_module_and_keeps_it_as_it_was() -> None:
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}  # type: ignore[attr-defined]
    names = np.array(["a", "b", "c"])[np.arange(24) % 3]
    c = trainlet.TrainletClassifier(model, epochs=2, scheme="head").fit(X, names)
    assert c.program_.classes == 3 and set(c.predict(X)) <= {"a", "b", "c"}
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # type: ignore[attr-defined]
