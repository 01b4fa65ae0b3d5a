"""The emitted C against the interpreter: integers identical, floats within 1e-5; memory as planned."""

import itertools

import numpy as np
import pytest

from tests.host.programs import FLOAT_NETWORKS, NETWORKS, built, labels, network, samples
from trainlet.ir import interpret
from trainlet.runtime.host import HostProgram
from trainlet.runtime.measure import peak_arena_bytes, touched

CASES = [
    *itertools.product(NETWORKS, [False], ["full", "head", "last:2"], ["fp32"], [1, 3]),
    *itertools.product(FLOAT_NETWORKS, [False], ["full", "last:2"], ["fp32"], [1, 3]),
    *itertools.product(
        ["residual", "wave"], [True], ["full", "last:2"], ["fp32", "residual", "stochastic", "nearest"], [1]
    ),
    *itertools.product(NETWORKS, [True], ["full", "bias-only:2"], ["stochastic"], [2]),
]
STEPS = 3


def close(a, b, tolerance=1e-5):
    return np.abs(a.astype(np.float64) - b).max() <= tolerance * (np.abs(b).max() + 1e-20)


def compare_state(host, state):
    """Floats to 1e-5 of the largest. An integer derived from a float step may fall to the other side of
    a rounding boundary: never by more than one unit, and in less than one element of a hundred."""
    for name, expected in state.items():
        ours = host.tensor(name)
        if ours.dtype.kind == "f":
            assert close(ours, expected), name
        else:
            moved = ours.astype(np.int64) != expected
            assert moved.sum() <= max(1, ours.size / 100), name
            if ours.dtype == np.int8 and not name.endswith("fraction"):
                assert np.abs(ours.astype(np.int64) - expected).max(initial=0) <= 1, name


@pytest.mark.parametrize(("name", "int8", "scheme", "master", "batch"), CASES)
def test_step_equals_interpreter(name, int8, scheme, master, batch, tmp_path):
    graph = network(name, int8)
    program, folder = built(graph, tmp_path, scheme=scheme, master=master, batch=batch, seed=5)
    host = HostProgram(folder)
    x, y = samples(graph, batch), labels(program, batch)
    step = program.functions["step"].graph
    for i in range(STEPS):
        before = host.tensors()
        loss = host.step(x, y, 0.02)
        result = interpret(step, {"x": x, "label": y, "lr": [0.02]}, before)
        assert close(np.array([loss]), result.outputs[0]), i
        assert close(host.logits(), result.outputs[1], 1e-5), i
        compare_state(host, result.state)
    expected = interpret(program.functions["predict"].graph, {"x": x[:1]}, host.tensors()).outputs[0]
    assert close(host.predict(x[:1]), expected)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("name", ["residual", "perceptron"])
def test_optimizers_equal_interpreter(name, optimizer, tmp_path):
    graph = network(name, False)
    program, folder = built(graph, tmp_path, scheme="full", optimizer=optimizer, weight_decay=0.01, batch=2)
    host, x = HostProgram(folder), samples(graph, 2)
    y = labels(program, 2)
    for _ in range(STEPS):
        before = host.tensors()
        host.step(x, y, 0.01)
        result = interpret(program.functions["step"].graph, {"x": x, "label": y, "lr": [0.01]}, before)
        for key, expected in result.state.items():
            assert close(host.tensor(key), expected, 2e-5), key


@pytest.mark.parametrize("master", ["fp32", "stochastic", "residual", "nearest"])
def test_accumulated_samples_make_one_update(master, tmp_path):
    graph = network("residual", True)
    program, folder = built(graph, tmp_path, scheme="full", master=master, accumulate=True)
    host, x = HostProgram(folder), samples(graph, 4)
    y = labels(program, 4)
    state = None
    for i in range(4):
        loss = host.accumulate(x[i : i + 1], y[i : i + 1])
        inputs = {"x": x[i : i + 1], "label": y[i : i + 1]}
        start = {**host.tensors(), **(state or {})} if state else None
        result = interpret(program.functions["accumulate"].graph, inputs, start)
        state = dict(result.state)
        assert close(np.array([loss]), result.outputs[0])
    full = {**{k: t.data for k, t in program.state.items()}, **state}
    applied = interpret(program.functions["apply"].graph, {"lr": [0.02], "factor": [0.25]}, full)
    host.apply(0.02)
    compare_state(host, applied.state)
    assert all(not host.tensor(f"{p.name}.grad_sum").any() for p in program.module.parameters)


@pytest.mark.parametrize(("name", "int8", "scheme", "master", "batch"), CASES[::3])
def test_painted_peak_equals_plan(name, int8, scheme, master, batch, tmp_path):
    graph = network(name, int8)
    program, folder = built(graph, tmp_path, scheme=scheme, master=master, batch=batch)
    host, x = HostProgram(folder), samples(graph, batch)
    y = labels(program, batch)
    assert peak_arena_bytes(host, x, y) == program.bytes["arena"]
    assert touched(host, "scratch", lambda: host.step(x, y, 0.01)) <= program.bytes["scratch"]


@pytest.mark.parametrize("int8", [False, True])
def test_optimisation_levels_give_identical_bits(int8, tmp_path):
    graph = network("residual", int8)
    master = "stochastic" if int8 else "fp32"
    program, folder = built(graph, tmp_path, scheme="full", master=master, batch=2)
    from trainlet.runtime.toolchain import FLAGS

    slow = tuple("-O0" if f == "-O3" else f for f in FLAGS)
    hosts = [HostProgram(folder), HostProgram(folder, slow, native=False)]
    x, y = samples(graph, 2), labels(program, 2)
    for _ in range(STEPS):
        losses = {np.float32(h.step(x, y, 0.05)).tobytes() for h in hosts}
        assert len(losses) == 1
    assert np.array_equal(hosts[0].region("state"), hosts[1].region("state"))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("int8", [False, True])
def test_resuming_behind_the_prefix_is_exact(int8, batch, tmp_path):
    graph = network("residual", int8)
    program, folder = built(graph, tmp_path, scheme="last:2", batch=batch)
    assert program.functions["step"].prefix_steps > 3
    whole, cached = HostProgram(folder), HostProgram(folder)
    x, y = samples(graph, batch), labels(program, batch)
    boundary = cached.prefix("step", x)
    for _ in range(STEPS):
        assert whole.step(x, y, 0.05) == cached.train_resume(boundary, y, 0.05)
    assert np.array_equal(whole.region("state"), cached.region("state"))
    behind = cached.prefix("predict", x[:1])
    assert np.array_equal(whole.predict(x[:1])[0], cached.predict_resume(behind))


def test_a_step_learns(tmp_path):
    """Guards against a program that agrees with a wrong interpreter: the loss on one batch must fall."""
    graph = network("residual", True)
    program, folder = built(graph, tmp_path, scheme="full", master="stochastic", batch=4)
    host, x = HostProgram(folder), samples(graph, 4)
    y = labels(program, 4)
    losses = [host.step(x, y, 0.02) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
