"""A sample in the arena, read where the caller has it, or by rows: the same bits, less memory."""

import ctypes

import numpy as np
import pytest

from tests.host.programs import built, deep, network, samples
from trainlet import api
from trainlet.errors import SchemeError
from trainlet.ir import interpret
from trainlet.runtime.host import HostProgram, Image
from trainlet.runtime.measure import peak_arena_bytes, touched

PLACES = ("caller", "rows")
READ = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_void_p)


def programs(folder, graph, place, **settings):
    """The same program with its samples in the arena, and elsewhere."""
    defaults = {"scheme": "last:1", "master": "stochastic"}
    found = [built(graph, folder / p, **{**defaults, **settings, "input": p}) for p in ("arena", place)]
    return found[0][0], found[1][0], *(HostProgram(path) for _, path in found)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stride", "kernel", "batch"), [(2, 5, 1), (1, 7, 3)])
def test_every_entry_point_computes_the_same_bits(place, stride, kernel, batch, tmp_path):
    graph = deep(stride, kernel)
    inside, outside, a, b = programs(tmp_path, graph, place, batch=batch)
    assert outside.bytes["arena"] <= inside.bytes["arena"]
    x, y = samples(graph, batch), np.arange(batch, dtype=np.int32)
    for _ in range(2):
        assert a.step(x, y, 0.05) == b.step(x, y, 0.05)
        assert np.array_equal(a.logits(), b.logits())
    boundary = b.prefix("step", x)
    assert np.array_equal(a.prefix("step", x), boundary)
    assert a.step(x, y, 0.05) == b.train_resume(boundary, y, 0.05)
    assert np.array_equal(a.region("state"), b.region("state"))
    x = samples(graph, 5, seed=1)
    assert np.array_equal(a.predict(x), b.predict(x))
    assert np.array_equal(a.predict(x)[0], b.predict_resume(b.prefix("predict", x[:1])))
    right = a.predict(x).argmax(1).astype(np.int32)
    right[2] += 1
    assert a.evaluate(x, right) == b.evaluate(x, right) == 4


@pytest.mark.parametrize("place", PLACES)
def test_accumulated_gradients_too(place, tmp_path):
    graph = deep()
    *_, a, b = programs(tmp_path, graph, place, accumulate=True)
    x, y = samples(graph, 3), np.arange(3, dtype=np.int32)
    for i in range(3):
        assert a.accumulate(x[i : i + 1], y[i : i + 1]) == b.accumulate(x[i : i + 1], y[i : i + 1])
    for host in (a, b):
        host.apply(0.05)
    assert np.array_equal(a.region("state"), b.region("state"))


@pytest.mark.parametrize("place", PLACES)
def test_outputs_are_the_interpreter_s(place, tmp_path):
    graph = deep(2, 5)
    program, folder = built(graph, tmp_path, scheme="last:1", master="stochastic", input=place)
    host, x = HostProgram(folder), samples(graph, 1)
    result = interpret(program.functions["step"].graph, {"x": x, "label": [1], "lr": [0.05]}, host.tensors())
    host.step(x, np.array([1], np.int32), 0.05)
    assert np.abs(host.logits() - result.outputs[1]).max() < 1e-5 * np.abs(result.outputs[1]).max()


@pytest.mark.parametrize("place", PLACES)
def test_memory_is_as_planned_and_the_sample_is_only_read(place, tmp_path):
    graph = deep()
    program, folder = built(graph, tmp_path, scheme="last:1", master="stochastic", input=place)
    host, x = HostProgram(folder), samples(graph, 1)
    before, y = x.copy(), np.zeros(1, np.int32)
    assert peak_arena_bytes(host, x, y) == program.bytes["arena"]
    assert touched(host, "scratch", lambda: host.step(x, y, 0.01)) <= program.bytes["scratch"]
    assert np.array_equal(x, before)
    assert "x" not in {r.name for f in program.functions.values() for r in f.ranges}
    assert program.sample_bytes == (x.nbytes if place == "caller" else 0)


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_are_asked_for_in_order_and_once(batch, tmp_path):
    graph = deep()
    _, folder = built(graph, tmp_path, scheme="last:1", master="stochastic", input="rows", batch=batch)
    host, x, asked = HostProgram(folder), samples(graph, batch), []
    rows = x.reshape(-1, x.shape[2] * x.shape[3])

    def read(context, first, count, to):
        asked.extend(range(first, first + count))
        ctypes.memmove(to, rows[first : first + count].ctypes.data, count * rows.shape[1])

    image = Image(ctypes.cast(callback := READ(read), ctypes.c_void_p), None)
    labels = np.zeros(batch, np.int32)
    loss = host._call(
        "step",
        ctypes.c_float,
        ctypes.byref(image),
        labels.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_float(0.05),
    )
    assert callback and asked == list(range(33 * batch))
    again = HostProgram(folder)
    assert loss == again.step(x, labels, 0.05)


@pytest.mark.parametrize("int8", [False, True])
def test_a_sample_that_training_needs_is_kept_with_the_boundary(int8, tmp_path):
    """Scheme full: the first layer's gradient reads it, in `resume` out of the boundary."""
    graph = network("residual", int8)
    master = "stochastic" if int8 else "fp32"
    *_, a, b = programs(tmp_path, graph, "caller", scheme="full", master=master)
    x, y = samples(graph, 1), np.zeros(1, np.int32)
    boundary = b.prefix("step", x)
    assert np.array_equal(boundary.view(x.dtype), x.reshape(-1))
    for _ in range(2):
        assert a.step(x, y, 0.05) == b.train_resume(boundary, y, 0.05)
    assert a.step(x, y, 0.05) == b.step(x, y, 0.05)
    assert np.array_equal(a.region("state"), b.region("state"))


@pytest.mark.parametrize(
    ("name", "int8", "scheme", "why"),
    [
        ("residual", True, "full", "x cannot come by rows: training needs it whole at .*; freeze that layer"),
        ("residual", False, "head", "x cannot come by rows: Conv at .* needs it whole; keep it in memory"),
        ("wave", True, "head", "x cannot come by rows: QLinearConv at .* needs it whole"),
    ],
)
def test_an_image_that_is_needed_whole_cannot_come_by_rows(name, int8, scheme, why):
    settings = api.Settings(scheme=scheme, input="rows")
    with pytest.raises(SchemeError, match=why):
        api.plan(network(name, int8), settings)


def test_another_place_is_refused():
    with pytest.raises(SchemeError, match="input 'disk' is none of arena, caller, rows"):
        api.plan(network("residual", True), api.Settings(input="disk"))


def test_the_plan_says_where_the_sample_is(tmp_path):
    graph = deep()
    for place, line in (
        ("caller", "the caller's, beside that RAM"),
        ("rows", "by rows of 87 bytes, never whole"),
    ):
        program, folder = built(graph, tmp_path / place, scheme="last:1", master="stochastic", input=place)
        assert line in (folder / "deep.h").read_text()
        assert api.plan_report(program)["input"]["where"] == place
