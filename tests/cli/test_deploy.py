"""compile, export, quantize, opt: what they write can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import arrays, run, run_json, samples
from tests.frontends.onnx_models import runtime
from trainlet import load
from trainlet.api import adapted_graph
from trainlet.ir import interpret
from trainlet.ir.text import load_graph, parse_program
from trainlet.passes import PASSES


def trained(model: Path, data: Path, scheme: str = "last:2", *words: object) -> Path:
    checkpoint = model.with_name("state.safetensors")
    run("train", model, "--data", data, "--scheme", scheme, "--epochs", 2, "--lr", 0.05, "--batch", 4,
        "--checkpoint", checkpoint, *words)  # fmt: skip
    return checkpoint


def test_compile_writes_a_program_that_trains(model: Path, data: Path, tmp_path: Path) -> None:
    run("compile", model, "--scheme", "last:2", "--batch", 4, "-o", tmp_path / "program")
    assert (tmp_path / "program" / "net.c").is_file()
    checkpoint = tmp_path / "c.st"
    run(
        "train", tmp_path / "program", "--data", data, "--epochs", 2, "--lr", 0.05, "--checkpoint", checkpoint
    )
    assert run_json("eval", model, "--data", data, "--checkpoint", checkpoint)["accuracy"] > 0.5
    same = trained(model, data)
    assert run_json("eval", model, "--data", data, "--checkpoint", same) == run_json(
        "eval", model, "--data", data, "--checkpoint", checkpoint
    )


def test_emit_after_prints_text_that_opt_reads(model: Path, tmp_path: Path) -> None:
    text = run("compile", model, "--scheme", "head", "-o", tmp_path / "program", "--emit-after", "fuse")
    names = [g.name for g in parse_program(text, shapes_only=True)]
    assert names == ["net.step", "net.predict"]
    (tmp_path / "dump.tl").write_text(text)
    assert run("opt", tmp_path / "dump.tl") == run("opt", tmp_path / "dump.tl", "--pass", "fuse")


def test_an_unknown_pass_is_named(model: Path, tmp_path: Path, fails: Callable[..., str]) -> None:
    assert "no pass 'melt'" in fails("compile", model, "-o", tmp_path / "program", "--emit-after", "melt")


def test_opt_derives_and_runs_passes_by_name(model: Path, data: Path, tmp_path: Path) -> None:
    text = tmp_path / "net8.tl"
    run("quantize", model, "--data", data, "-o", text)
    plain = run("opt", text, "--autodiff", "--scheme", "bias-only:1")
    assert "graph net.step(" in plain and "Grad" in plain
    fused = run(
        "opt", text, "--autodiff", "--scheme", "bias-only:1", *(w for p in PASSES for w in ("--pass", p))
    )
    assert "QLinearConv" in fused and "QLinearConv" not in plain


def test_opt_says_where_a_text_is_wrong(tmp_path: Path, fails: Callable[..., str]) -> None:
    (tmp_path / "bad.tl").write_text("graph g(x: f32[1,2]) {\n  y: f32[1,2] = Relux(x)\n  return y\n}\n")
    message = fails("opt", tmp_path / "bad.tl")
    assert "bad.tl" in message and "line 2" in message
    assert "nowhere.tl" in fails("opt", tmp_path / "nowhere.tl")


@pytest.mark.parametrize("scheme", ["head", "full"])
def test_the_exported_network_predicts_what_the_adapted_one_does(
    scheme: str, model: Path, data: Path, tmp_path: Path
) -> None:
    checkpoint = trained(model, data, scheme)
    run("export", model, "--checkpoint", checkpoint, "--to", "onnx", "-o", tmp_path / "new.onnx")
    graph, changed = adapted_graph(model, checkpoint), False
    for x in samples(8, 5)[0][:, None]:
        want = interpret(graph, {"x": x.transpose(0, 2, 3, 1)}).outputs[0]
        np.testing.assert_allclose(runtime(tmp_path / "new.onnx", x), want, rtol=1e-4, atol=1e-5)
        changed |= not np.allclose(runtime(model, x), want, atol=1e-2)
    assert changed


def test_exported_parameters_read_back(model: Path, data: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    checkpoint = trained(model, data)
    run(
        "export", model, "--checkpoint", checkpoint, "--to", "safetensors", "-o", tmp_path / "new.safetensors"
    )
    read, graph = load_file(tmp_path / "new.safetensors"), adapted_graph(model, checkpoint)
    assert set(read) == set(graph.constants)
    assert all(np.array_equal(read[k], t.data) for k, t in graph.constants.items())
    before = load(model).constants
    changed = {k for k in read if not np.array_equal(read[k], before[k].data)}
    assert changed == {f"{layer}.{kind}" for layer in ("dw", "pw", "head") for kind in ("weight", "bias")}


@pytest.mark.parametrize("method,head", [("minmax", "fp32"), ("percentile", "int8")])
def test_a_float_network_goes_to_int8_and_is_trained(
    method: str, head: str, model: Path, data: Path, tmp_path: Path
) -> None:
    text = tmp_path / "net8.tl"
    assert "net8.npz" in run(
        "quantize", model, "--data", data, "-o", text, "--method", method, "--head", head
    )
    assert load_graph(text).inputs[0].dtype == "s8"
    assert run_json("inspect", text)["layers"][0]["dtype"] == "s8"
    bytes_ = {m: run_json("plan", text, "--scheme", "last:2", "--master", m)["ram_bytes"]["state"]
              for m in ("fp32", "residual", "nearest")}  # fmt: skip
    assert bytes_["nearest"] < bytes_["residual"] < bytes_["fp32"]
    checkpoint = trained(text, data, "last:2", "--master", "residual")
    adapted = run_json("eval", text, "--data", data, "--checkpoint", checkpoint)["accuracy"]
    assert adapted > max(0.5, run_json("eval", text, "--data", data)["accuracy"])
    run("export", text, "--checkpoint", checkpoint, "-o", tmp_path / "new.onnx")
    graph = adapted_graph(text, checkpoint)
    quant = graph.inputs[0].quant
    assert quant is not None
    for x in arrays()["x_test"][:8]:
        q = np.clip(np.rint(x / np.float32(quant.scale)) + quant.zero_point, -128, 127).astype(np.int8)
        want = interpret(graph, {"x": q.transpose(1, 2, 0)[None]}).outputs[0]
        np.testing.assert_allclose(runtime(tmp_path / "new.onnx", q[None]), want, atol=1e-5)


def test_quantizing_needs_a_float_network_and_enough_samples(
    model: Path, data: Path, tmp_path: Path, fails: Callable[..., str]
) -> None:
    run("quantize", model, "--data", data, "-o", tmp_path / "net8.tl")
    assert "one float input" in fails(
        "quantize", tmp_path / "net8.tl", "--data", data, "-o", tmp_path / "again.tl"
    )
    few = {k: a[:2] for k, a in arrays().items()}
    np.savez(tmp_path / "few.npz", **few)  # type: ignore[arg-type]
    assert "too few" in fails("quantize", model, "--data", tmp_path / "few.npz", "-o", tmp_path / "q.tl")


def test_an_image_by_rows_trains_in_a_compiled_folder(model: Path, data: Path, tmp_path: Path) -> None:
    """compile --input rows, then train and plan: the folder knows how its samples come."""
    int8, out = tmp_path / "int8.tl", tmp_path / "program"
    run("quantize", model, "--data", data, "-o", int8)
    run("compile", int8, "--scheme", "head", "--input", "rows", "-o", out)
    assert "typedef struct { net_rows rows; void *context; } net_image;" in (out / "net.h").read_text()
    assert "0." in run("train", out, "--data", data, "--epochs", 1, "--lr", 0.01)
    report = json.loads(run("plan", int8, "--scheme", "head", "--input", "caller", "--json"))
    assert report["input"] == {"where": "caller", "caller_bytes": 8 * 8 * 3}
    assert "by rows" in run("plan", int8, "--scheme", "head", "--input", "rows")
