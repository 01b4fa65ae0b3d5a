"""The form of a program that is built for this machine alone: fewer seconds, the same bits."""

from __future__ import annotations

import ctypes
import sys

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


@pytest.mark.parametrize("compiler", ["gcc", f"{sys.executable} -m ziglang cc"], ids=["gcc", "zig"])
@pytest.mark.parametrize(("name", "int8"), [("residual", True), ("excited", True), ("normalized", False)])
def test_constants_as_bytes_and_as_text_give_equal_bits(name, int8, compiler, tmp_path, monkeypatch):
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


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> list[str]:
    """Names of sources that were compiled, with an empty cache."""
    monkeypatch.setenv("TRAINLET_CACHE", str(tmp_path / "cache"))
    found, publish = [], toolchain.publish

    def noted(target, command):
        found.extend(word.rsplit("/", 1)[-1] for word in command("out") if word.endswith(".c"))
        publish(target, command)

    monkeypatch.setattr(toolchain, "publish", noted)
    return found


def sources(folder, number: int):
    """A program of one function and a kernel that it shares with others."""
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "k.h").write_text("int k(int x);\n")
    (folder / "kernels" / "k.c").write_text('#include "k.h"\nint k(int x) { return 2 * x; }\n')
    (folder / "p.c").write_text(f'#include "k.h"\nint p(void) {{ return k({number}); }}\n')
    return folder


def test_a_second_program_compiles_no_kernel_again(compiled, tmp_path):
    libraries = [toolchain.build_shared(sources(tmp_path / str(n), n)) for n in (1, 2)]
    assert sorted(compiled) == ["k.c", "p.c", "p.c"]
    assert [ctypes.CDLL(str(path)).p() for path in libraries] == [2, 4]


def test_a_replaced_compiler_or_a_changed_header_compiles_again(compiled, tmp_path, monkeypatch):
    folder = sources(tmp_path / "p", 1)
    toolchain.build_shared(folder)
    (folder / "kernels" / "k.h").write_text("int k(int x); /* changed */\n")
    toolchain.build_shared(folder)
    assert sorted(compiled) == ["k.c", "k.c", "p.c", "p.c"]
    monkeypatch.setattr(toolchain, "compiler_version", lambda command: "another")
    toolchain.build_shared(folder)
    assert compiled.count("k.c") == 3


def test_what_is_generated_has_its_own_flags(compiled, tmp_path):
    folder = sources(tmp_path / "p", 1)
    toolchain.build_shared(folder)
    toolchain.build_shared(folder, generated=toolchain.GENERATED)
    assert sorted(compiled) == ["k.c", "p.c", "p.c"]
