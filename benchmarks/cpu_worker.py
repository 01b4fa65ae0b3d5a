"""One contender in a process of its own: `python -m benchmarks.cpu_worker FOLDER`, told what to do on stdin.

FOLDER holds spec.json, the network (network.tl) and the data (data.npz). It answers with lines of JSON: first
what it took to get ready and the losses of the checked steps, then, for every number on stdin, the seconds of
so many steps, and at "end" its peak resident memory. start_s: from the start of the process to the end of its
first step. compile_s, or build_s, which leaves out what the first step does: making the step's program.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[np.ndarray, np.ndarray], float]
Ready = tuple[Step, dict[str, float]]


def trainlet(spec: Mapping[str, Any], folder: Path) -> Ready:
    """Our program; compiled by the first process that asks for it, which notes the seconds that took."""
    from trainlet.compiled import compile_model
    from trainlet.ir.text import load_graph
    from trainlet.runtime.toolchain import cache_folder
    from trainlet.scheme import read_scheme

    graph, scheme = load_graph(folder / "network.tl"), read_scheme(folder / "scheme.json")
    words = [str(spec[k]) for k in ("workload", "batch", "scheme", "threads")]
    started, note = time.perf_counter(), cache_folder() / f"compile-{'-'.join(words)}.txt"
    program = compile_model(graph, scheme=scheme, batch=spec["batch"], threads=spec["threads"])
    if not note.is_file():
        note.write_text(str(time.perf_counter() - started))
    ready = {"compile_s": float(note.read_text())}
    ready |= {f"{k}_bytes": v for k, v in program.host.manifest["bytes"].items()}
    return lambda x, y: program.step(x, y, spec["lr"]), ready


def torch_eager(spec: Mapping[str, Any], folder: Path, wrap: str = "") -> Ready:
    """The module with its normalisation folded. What is frozen asks for no gradient, so autograd keeps
    nothing of the frozen prefix: what no_grad around it would give."""
    import torch

    from benchmarks.torch_folded import folded_module

    torch.set_num_threads(spec["threads"])
    module, names = folded_module(spec["workload"])
    trained = {names.get(n, n) for n in spec["trained"]}
    for name, p in module.named_parameters():
        p.requires_grad_(name in trained)
    missing = trained - {n for n, _ in module.named_parameters()}
    if missing:
        raise KeyError(f"the module has no {sorted(missing)[0]}")
    form = torch.channels_last if "last" in wrap else torch.contiguous_format
    module = module.to(memory_format=form)
    call = torch.compile(module) if "compiled" in wrap else module
    rule = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=spec["lr"])

    def step(x: np.ndarray, y: np.ndarray) -> float:
        out = call(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=form))
        loss = torch.nn.functional.cross_entropy(getattr(out, "logits", out), torch.from_numpy(y).long())
        rule.zero_grad()
        loss.backward()
        rule.step()
        return float(loss.detach())

    return step, {}


def jax(spec: Mapping[str, Any], folder: Path) -> Ready:
    """The graph as a jitted function; gradients of what is trained only."""
    import jax as library
    import jax.numpy as jnp

    from benchmarks.graph_functions import forward, jax_layers
    from trainlet.ir.text import load_graph

    graph, layers = load_graph(folder / "network.tl"), jax_layers()
    weights = {k: jnp.asarray(t.data) for k, t in graph.constants.items()}
    trained = {k: weights[k] for k in spec["trained"]}
    frozen = {k: v for k, v in weights.items() if k not in trained}

    def loss_of(parameters: Any, x: Any, y: Any) -> Any:
        z = forward(graph, layers, x, {**frozen, **parameters})
        return (library.nn.logsumexp(z, 1) - z[jnp.arange(len(y)), y]).mean()

    @library.jit
    def update(parameters: Any, x: Any, y: Any) -> Any:
        loss, gradients = library.value_and_grad(loss_of)(parameters, x, y)
        return loss, {k: parameters[k] - spec["lr"] * g for k, g in gradients.items()}

    def step(x: np.ndarray, y: np.ndarray) -> float:
        nonlocal trained
        loss, trained = update(trained, x, y)
        return float(loss)

    return step, {}


def tensorflow(spec: Mapping[str, Any], folder: Path) -> Ready:
    """The graph as a tf.function."""
    import tensorflow as tf

    from benchmarks.graph_functions import forward, tensorflow_layers
    from trainlet.ir.text import load_graph

    tf.config.threading.set_intra_op_parallelism_threads(spec["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(1)
    graph, layers = load_graph(folder / "network.tl"), tensorflow_layers()
    frozen = {k: tf.constant(t.data) for k, t in graph.constants.items() if k not in spec["trained"]}
    trained = {k: tf.Variable(graph.constants[k].data) for k in spec["trained"]}

    @tf.function
    def update(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            z = forward(graph, layers, x, {**frozen, **trained})
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, z))
        for variable, g in zip(trained.values(), tape.gradient(loss, list(trained.values())), strict=True):
            variable.assign_sub(spec["lr"] * g)
        return loss

    return lambda x, y: float(update(tf.constant(x), tf.constant(y))), {}


def onnxruntime(spec: Mapping[str, Any], folder: Path) -> Ready:
    """ONNX Runtime training: artifacts of the exported graph, its own SGD."""
    import onnx
    from onnxruntime import SessionOptions
    from onnxruntime.training import artifacts
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    started = time.perf_counter()
    model = onnx.load(str(folder / "network.onnx"))
    names = [t.name for t in model.graph.initializer]
    trained = [n for n in names if n in set(spec["trained"])]
    if len(trained) != len(spec["trained"]):
        raise KeyError("the exported network lacks a trained tensor")
    to = folder / "artifacts"
    to.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        model, requires_grad=trained, frozen_params=[n for n in names if n not in trained],
        loss=artifacts.LossType.CrossEntropyLoss, optimizer=artifacts.OptimType.SGD,
        artifact_directory=str(to),
    )  # fmt: skip
    state = CheckpointState.load_checkpoint(str(to / "checkpoint"))
    options = SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    model_files = (str(to / f"{name}_model.onnx") for name in ("training", "eval"))
    module = Module(next(model_files), state, next(model_files), "cpu", options)
    rule = Optimizer(str(to / "optimizer_model.onnx"), module)
    rule.set_learning_rate(spec["lr"])
    module.train()
    built = time.perf_counter() - started

    def step(x: np.ndarray, y: np.ndarray) -> float:
        loss = module(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), y.astype(np.int64))
        rule.step()
        module.lazy_reset_grad()
        return float(loss)

    return step, {"build_s": built}


CONTENDERS: dict[str, Callable[[Mapping[str, Any], Path], Ready]] = {
    "trainlet": trainlet,
    "torch": torch_eager,
    "torch channels_last": lambda s, f: torch_eager(s, f, "last"),
    "torch.compile": lambda s, f: torch_eager(s, f, "compiled"),
    "jax": jax,
    "tensorflow": tensorflow,
    "onnxruntime": onnxruntime,
}


def resident_bytes(which: str) -> int:
    """VmRSS: now. VmHWM: the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(x for x in lines if x.startswith(which)).split()[1])


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    with np.load(folder / "data.npz") as data:
        batches = list(zip(data["x"], data["y"], strict=True))
    start_bytes = resident_bytes("VmRSS")
    step, facts = CONTENDERS[spec["contender"]](spec, folder)
    started = time.perf_counter()
    losses = [step(*batches[0])]
    facts["first_step_s"] = time.perf_counter() - started
    facts["start_s"] = time.time() - spec["launched"]
    losses += [step(*batches[i % len(batches)]) for i in range(1, spec["checked"])]
    say(losses=losses, start_bytes=start_bytes, **facts)
    for line in sys.stdin:
        if line.strip() == "end":
            say(peak_bytes=resident_bytes("VmHWM"))
            return
        times = []
        for i in range(int(line)):
            x, y = batches[i % len(batches)]
            started = time.perf_counter()
            step(x, y)
            times.append(time.perf_counter() - started)
        say(times=times)


if __name__ == "__main__":
    main()
