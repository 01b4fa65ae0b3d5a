"""The form of a program that is built for this machine alone: fewer seconds, the same bits."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.host.programs import labels, network, samples
from trainlet.api import Settings, build, plan
from trainlet.backends.c99 import write_host_sources, write_sources
from trainlet.runtime import toolchain
from trainlet.runtime.host import HostProgram
from trainlet.scheme import UpdateScheme, layers
from trainlet.scheme.scheme import Channels

STEPS = 3


def shares(graph) -> UpdateScheme:
    """Half the input channels of a middle weight, and the head."""
    found = layers(graph)
    weights = {found[2].weight.name: Channels(share=0.5), found[-1].weight.name: Channels(share=1.0)}
    return UpdateScheme("shares", weights, (found[-1].bias.name,))


def results(host: HostProgram, x: np.ndarray, y: np.ndarray) -> list[bytes]:
    losses = [np.float32(host.step(x, y, 0.05)).tobytes() for _ in range(STEPS)]
    return [*losses, host.region("state").tobytes(), host.predict(x[:1]).tobytes()]


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize(("name", "int8"), [("residual", True), ("excited", True), ("normalized", False)])
def test_constants_as_bytes_and_as_text_give_equal_bits(name, int8, compiler, tmp_path, monkeypatch):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    monkeypatch.setenv("CC", compiler)
    graph = network(name, int8)
    settings = Settings(shares(graph), "stochastic" if int8 else "fp32", batch=2, seed=3)
    program, x = plan(graph, settings), samples(graph, 2)
    y = labels(program, 2)
    package = HostProgram(write_sources(program, tmp_path / "text"))
    bytes_ = HostProgram(write_host_sources(program, tmp_path / "bytes"))
    assert results(package, x, y) == results(bytes_, x, y)
    quick = build(graph, settings, thorough=False)
    assert results(quick, x, y)[:STEPS] == results(HostProgram(package.folder), x, y)[:STEPS]
    assert all(np.array_equal(quick.tensor(k), package.tensor(k)) for k in quick.tensors())


def test_two_programs_of_one_name_keep_their_own_constants(tmp_path):
    first, second = (network("residual", True) for _ in range(2))
    head = layers(second)[-1].weight.name
    constants = dict(second.constants)
    constants[head] = type(constants[head])(constants[head].value, constants[head].data[::-1].copy())
    second = type(second)(**{**second.__dict__, "constants": constants})
    x = samples(first, 1)
    a, b = (build(g, Settings("head")) for g in (first, second))
    assert not np.array_equal(a.predict(x), b.predict(x))
    trained = [np.sort(h.tensor(f"{head}.trained"), axis=None) for h in (a, b)]
    assert np.array_equal(*trained)


def test_a_second_program_compiles_no_kernel_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    compiled: list[str] = []
    publish = toolchain.publish

    def noted(target, command):
        compiled.append(command("out")[-3].rsplit("/", 1)[-1])
        publish(target, command)

    monkeypatch.setattr(toolchain, "publish", noted)
    graph = network("residual", True)
    build(graph, Settings("head"))
    assert any("conv_s8.c" in c for c in compiled)
    compiled.clear()
    build(graph, Settings("last:1", batch=2))
    assert [c for c in compiled if c.endswith(".c")] == ["residual.c"]  # its constants are the same


def test_a_replaced_compiler_compiles_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path))
    graph = network("residual", True)
    build(graph, Settings("head"))
    before = {p.name for p in (tmp_path / "trainlet").glob("*.o")}
    monkeypatch.setattr(toolchain, "compiler_version", lambda command: "another")
    build(graph, Settings("head"))
    after = {p.name for p in (tmp_path / "trainlet").glob("*.o")}
    assert len(after) == 2 * len(before)
