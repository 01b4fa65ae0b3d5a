"""Training step by step under published schemes: the interpreter, and the emitted C."""

import pytest

from tests.conformance.vectors import TRAJECTORIES, nhwc, relative, vector
from trainlet.backends.c99 import scratch_bytes, write_sources
from trainlet.ir import interpret
from trainlet.plan.program import plan
from trainlet.runtime.host import HostProgram
from trainlet.train import Optimizer, derive

pytestmark = pytest.mark.shared


def interpreted(v, module, tmp_path):
    """Loss and state after each step, by the interpreter."""
    state = None
    while True:
        inputs = {"x": v.samples, "label": v.labels, "lr": [float(v.arrays["lr"])]}
        result = interpret(module.functions["step"], inputs, state)
        state = result.state
        yield float(result.outputs[0][0]), state


def emitted(v, module, tmp_path):
    """The same by the C program."""
    host = HostProgram(write_sources(plan(module, scratch_bytes), tmp_path))
    while True:
        yield host.step(v.samples, v.labels, float(v.arrays["lr"])), host.tensors()


@pytest.mark.parametrize("runner", [interpreted, emitted])
@pytest.mark.parametrize("name", TRAJECTORIES)
def test_losses_and_masters_follow_the_published_run(name, runner, tmp_path):
    v = vector(name)
    selection = v.selection(TRAJECTORIES[name])
    for key in (k for k in v.arrays if k.startswith("keep_idx/") and len(v.arrays[k])):
        chosen = selection.weights[f"{key[9:]}/weight"]
        assert chosen is None or chosen == tuple(sorted(v.arrays[key]))
    module = derive(v.graph, selection, Optimizer(master="fp32"))
    steps = runner(v, module, tmp_path)
    for i, expected in enumerate(v.arrays["losses"], start=1):
        loss, state = next(steps)
        assert abs(loss - expected) <= (1e-5 if i == 1 else 1e-2), f"step {i}"
        compared = _compare_masters(v, module, state, i, 1e-5 if i == 1 else 1e-3)
        assert compared or i not in (1, len(v.arrays["losses"]))


def _compare_masters(v, module, state, step, tolerance):
    parameters = {p.name: p for p in module.parameters}
    names = {"head_w": "classifier/weight", "head_b": "classifier/bias"}
    compared = 0
    for key in (k for k in v.arrays if k.startswith(f"step{step}/")):
        _, kind, *layer = key.split("/")
        p = parameters.get(names.get(kind) or f"{layer[0]}/{kind}")
        if p is None:  # a weight of which the scheme keeps no channel
            continue
        expected = nhwc(v.arrays[key])
        if p.channels is not None:
            expected = expected[..., list(p.channels)]
        ours = state[p.tensors["w"].value.name]
        assert relative(ours, expected) <= tolerance, key
        compared += 1
    return compared
