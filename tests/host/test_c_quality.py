"""The emitted sources as C: no warnings, silent sanitizers, nothing global, no libc but string.h."""

import re
import subprocess

import numpy as np
import pytest

from tests.host.programs import NETWORKS, built, network, samples
from trainlet.runtime.toolchain import WARNINGS, compiler

C99 = ["-std=c99", "-ffp-contract=off", "-DTL_USE_FMA=0"]


def sources(folder):
    return [str(p) for p in [*sorted(folder.glob("*.c")), *sorted((folder / "kernels").glob("*.c"))]]


def run(command, **kwargs):
    result = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_warnings_are_errors(name, int8, tmp_path):
    _, folder = built(network(name, int8), tmp_path, scheme="full", batch=2)
    own = [str(p) for p in sorted(folder.glob("*.c"))]
    run([*compiler(), *C99, *WARNINGS, "-O1", f"-I{folder / 'kernels'}", "-c", *own], cwd=folder)


def test_kernels_compile_without_warnings(tmp_path):
    _, folder = built(network("wave", True), tmp_path, scheme="head")
    kernels = [str(p) for p in sorted((folder / "kernels").glob("*.c"))]
    for level in ("-O0", "-O3"):
        run([*compiler(), *C99, *WARNINGS, level, "-c", *kernels], cwd=folder)


DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include "{name}.h"
static {name}_t m;
static const {kind} samples[] = {{ {samples} }};
static const int32_t labels[] = {{ {labels} }};
int main(void) {{
  float out[64];
  {name}_init(&m, 7);
  for (int i = 0; i < 3; i++) {{
    float loss = {name}_step(&m, samples, labels, 0.05f);
    printf("%a\\n", (double)loss);
  }}
  {name}_predict(&m, samples, out);
  void *saved = malloc({upper}_STATE_BYTES);
  {name}_get_state(&m, saved);
  {name}_set_state(&m, saved);
  free(saved);
  return {name}_evaluate(&m, samples, labels, {batch}) < 0;
}}
"""


@pytest.mark.parametrize(
    ("name", "int8", "master"),
    [
        ("residual", True, "stochastic"),
        ("residual", True, "fp32"),
        ("excited", True, "residual"),
        ("excited", False, "fp32"),
        ("wave", True, "nearest"),
        ("perceptron", False, "fp32"),
    ],
)
def test_sanitizers_are_silent(name, int8, master, tmp_path):
    graph, batch = network(name, int8), 2
    _, folder = built(graph, tmp_path, scheme="full", master=master, batch=batch)
    x = samples(graph, batch)
    form = (lambda v: str(int(v))) if int8 else (lambda v: f"{float(v):.9e}f")
    text = DRIVER.format(
        name=name,
        upper=name.upper(),
        kind="int8_t" if int8 else "float",
        batch=batch,
        samples=", ".join(form(v) for v in x.reshape(-1)),
        labels="0, 1",
    )
    (folder / "driver.c").write_text(text)
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    run(
        [
            *compiler(),
            *C99,
            *sanitize,
            f"-I{folder}",
            f"-I{folder / 'kernels'}",
            *sources(folder),
            "-lm",
            "-o",
            str(folder / "driver"),
        ]
    )
    out = run([str(folder / "driver")]).stdout.split()
    losses = [float.fromhex(v) for v in out]
    assert len(losses) == 3 and np.isfinite(losses).all()


def test_no_writable_globals_and_no_libc_beyond_memory_moves(tmp_path):
    _, folder = built(network("residual", True), tmp_path, scheme="full", master="stochastic")
    run(
        [*compiler(), *C99, "-O2", f"-I{folder / 'kernels'}", "-fno-builtin-printf", "-c", *sources(folder)],
        cwd=folder,
    )
    symbols = run(["nm", *map(str, sorted(folder.glob("*.o")))]).stdout
    kinds = {m.group(1): m.group(2) for m in re.finditer(r"\s([A-Za-z])\s(\S+)$", symbols, re.M)}
    writable = [m.group(0) for m in re.finditer(r"\s[BbDdCc]\s\S+$", symbols, re.M)]
    assert not writable, writable
    outside = {m.group(1) for m in re.finditer(r"\sU\s(\S+)$", symbols, re.M)}
    own = {m.group(1) for m in re.finditer(r"\s[TtRr]\s(\S+)$", symbols, re.M)}
    assert outside - own <= {"memcpy", "memset", "memmove", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
    assert kinds
