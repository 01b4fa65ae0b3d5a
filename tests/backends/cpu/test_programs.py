"""Whole CPU programs against the interpreter, step by step."""

import subprocess

import numpy as np
import pytest

from tests.backends.cpu.programs import GRAPHS, batch, built
from trainlet.api import Settings, derive
from trainlet.backends.cpu import ISAS, falls_back, plan_program
from trainlet.errors import BackendError, BudgetError
from trainlet.ir import interpret
from trainlet.runtime.host import HostProgram
from trainlet.runtime.toolchain import CPU_FLAGS, check_processor, compiler

STEPS = 3


def difference(a, b):
    """Largest difference, relative to the largest element."""
    return np.abs(a.astype(np.float64) - b).max() / (np.abs(b).max() + 1e-20)


@pytest.mark.parametrize(
    ("name", "scheme", "threads"),
    [("stages", "full", 2), ("residual", "full", 1), ("residual", "last:2", 2), ("wave", "full", 1)],
)
def test_steps_equal_the_interpreter(name, scheme, threads, tmp_path):
    program = built(GRAPHS[name](), tmp_path, threads, scheme=scheme, batch=3)
    host, (x, y) = HostProgram(tmp_path), batch(program)
    for _ in range(STEPS):
        before = host.tensors()
        loss = host.step(x, y, 0.002)
        expected = interpret(program.main.graph, {"x": x, "label": y, "lr": [0.002]}, before)
        assert difference(np.array([loss]), expected.outputs[0]) < 1e-5
        assert difference(host.logits(), expected.outputs[1]) < 2e-5
        assert all(difference(host.tensor(k), v) < 5e-5 for k, v in expected.state.items())
    one = interpret(program.functions["predict"].graph, {"x": x[:1]}, host.tensors()).outputs[0]
    assert difference(host.predict(x[:1]), one) < 2e-5


@pytest.mark.parametrize("name", ["stages", "residual", "excited"])
def test_gradients_equal_float64(name, tmp_path):
    """Every gradient tensor to 1e-4 of its largest element, behind Winograd, patches and fallbacks alike."""
    program = built(GRAPHS[name](), tmp_path, 2, scheme="full", batch=2, accumulate=True)
    host, (x, y) = HostProgram(tmp_path), batch(program)
    expected = interpret(program.main.graph, {"x": x, "label": y}, host.tensors(), real=np.float64).state
    host.accumulate(x, y)
    for key, gradient in expected.items():
        assert difference(host.tensor(key), gradient) < 1e-4, key


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_optimizers_and_accumulation_equal_the_interpreter(optimizer, tmp_path):
    settings = {"scheme": "full", "optimizer": optimizer, "weight_decay": 0.01}
    graph = GRAPHS["residual"]()
    program = built(graph, tmp_path / "step", batch=2, **settings)
    host, (x, y) = HostProgram(tmp_path / "step"), batch(program)
    for _ in range(STEPS):
        before = host.tensors()
        host.step(x, y, 0.01)
        expected = interpret(program.main.graph, {"x": x, "label": y, "lr": [0.01]}, before).state
        assert all(difference(host.tensor(k), v) < 2e-5 for k, v in expected.items())
    apart = built(graph, tmp_path / "apart", accumulate=True, **settings)
    host = HostProgram(tmp_path / "apart")
    host.accumulate(x[:1], y[:1])
    host.accumulate(x[1:], y[1:])
    full = {**{k: t.data for k, t in apart.state.items()}, **host.tensors()}
    host.apply(0.01)
    after = interpret(apart.functions["apply"].graph, {"lr": [0.01], "factor": [0.5]}, full).state
    assert all(difference(host.tensor(k), v) < 2e-5 for k, v in after.items())


def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    states = []
    for threads in (1, 2, 3):
        program = built(GRAPHS["stages"](), tmp_path / str(threads), threads, scheme="full", batch=4)
        assert threads == 1 or f", {threads});" in (tmp_path / str(threads) / "stages.c").read_text()
        host, (x, y) = HostProgram(tmp_path / str(threads)), batch(program)
        for _ in range(STEPS):
            host.step(x, y, 0.05)
        states.append(host.tensors())
    for other in states[1:]:
        assert all(np.array_equal(states[0][k], v) for k, v in other.items())


def test_prefix_and_resume_are_the_whole_step(tmp_path):
    program = built(GRAPHS["stages"](), tmp_path, scheme="last:2", batch=2)
    (x, y), a, b = batch(program), HostProgram(tmp_path), HostProgram(tmp_path)
    assert program.main.prefix_steps > 0
    assert a.step(x, y, 0.1) == b.train_resume(b.prefix("step", x), y, 0.1)
    assert all(np.array_equal(a.tensor(k), v) for k, v in b.tensors().items())
    assert np.array_equal(a.predict(x[:1])[0], b.predict_resume(b.prefix("predict", x[:1])))


def test_residuals_clips_and_masks_are_fused(tmp_path):
    built(GRAPHS["stages"](), tmp_path, scheme="full")
    source = (tmp_path / "stages.c").read_text()
    assert "Conv + Add + Clip ->" in source
    assert "ConvInputGrad + MaskGrad ->" in source


def test_frozen_layers_keep_no_masks_and_no_second_layout(tmp_path):
    """A frozen prefix is inference code: packed weights only, nothing saved."""
    program = built(GRAPHS["stages"](), tmp_path, scheme="head")
    assert not any(v.dtype == "u1" for v in program.main.graph.values())
    weights = sum(t.value.bytes for t in program.constants.values())
    assert (tmp_path / "stages_weights.bin").stat().st_size < 6 * weights  # Winograd holds 36 of 9 points


def test_what_falls_back_is_known(tmp_path):
    """Of convolutions only grouped ones; the others are activations and moves (docs/cpu-backend.md)."""
    program = built(GRAPHS["excited"](), tmp_path, scheme="full")
    nodes = [n for f in program.functions.values() for n in f.graph.nodes]
    grouped = [n for n in nodes if falls_back(n) and "Conv" in n.op]
    assert grouped
    assert all(n.attrs["groups"] == 2 for n in grouped)
    assert not any(
        falls_back(n) for n in nodes if n.op in ("Add", "Clip", "MaxPool", "MaxPoolGrad", "BiasGradUpdate")
    )


def test_four_lanes_run_here_too(tmp_path):
    """The code path of NEON's width, as plain x86-64."""
    program = built(GRAPHS["residual"](), tmp_path, 1, "x86-64", scheme="full", batch=2)
    host, (x, y) = HostProgram(tmp_path), batch(program)
    before = host.tensors()
    host.step(x, y, 0.05)
    expected = interpret(program.main.graph, {"x": x, "label": y, "lr": [0.05]}, before).state
    assert all(difference(host.tensor(k), v) < 1e-5 for k, v in expected.items())


def test_missing_instructions_are_said_before_the_program_is_loaded():
    with pytest.raises(BackendError, match=r"processor with avx9000, which this one lacks.*compile it here"):
        check_processor(["avx9000"])


def test_bad_targets_are_refused(tmp_path):
    with pytest.raises(BackendError, match="isa 'z80' is none of native, x86-64"):
        built(GRAPHS["wave"](), tmp_path, 1, "z80")
    with pytest.raises(BackendError, match="0 threads: choose 1 to 64"):
        built(GRAPHS["wave"](), tmp_path, 0)
    module = derive(GRAPHS["wave"](), Settings())
    with pytest.raises(BudgetError, match="the budget is 1,000"):
        plan_program(module, budget_bytes=1000)


MAIN = """
#include "{name}.h"
#include "tl_check.h"
static {name}_t m;
int main(void) {{
  static float x[{size}], out[16];
  int32_t y[{batch}] = {{0}};
  if (tl_missing_feature()) return 2;
  for (int i = 0; i < {size}; i++) x[i] = (float)(i * 7919 % 101) / 50.0f - 1.0f;
  {name}_init(&m, 0);
  float first = {name}_step(&m, x, y, 0.05f), second = {name}_step(&m, x, y, 0.05f);
  {name}_predict(&m, x, out);
  return second < first ? 0 : 1;
}}
"""


@pytest.mark.slow
def test_a_standalone_program_runs_clean_under_sanitizers(tmp_path):
    """As a C program of its own, without Python; warnings are errors."""
    name = "stages"
    program = built(GRAPHS[name](), tmp_path, 2, scheme="full", batch=2)
    size = program.main.graph.inputs[0].size
    (tmp_path / "main.c").write_text(MAIN.format(name=name, size=size, batch=2))
    isa = HostProgram(tmp_path).manifest["build"]["isa"]
    flags = [
        *CPU_FLAGS,
        *ISAS[isa].flags,
        "-O1",
        "-g",
        "-fsanitize=undefined,address",
        "-fno-sanitize-recover=all",
    ]
    strict = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    sources = [*sorted(tmp_path.glob("*.c")), *sorted((tmp_path / "kernels").glob("*.c"))]
    command = [*compiler(), *flags, *strict, "-I.", "-Ikernels", *map(str, sources), "-lm", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run(["./main"], cwd=tmp_path, check=True)
