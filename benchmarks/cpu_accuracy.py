"""EfficientNet-Lite0 with its ImageNet weights, adapted to caltech101: what is learned, and what it costs.

    python -m benchmarks.cpu_accuracy agree      # 200 steps by us and by PyTorch, from three seeds
    python -m benchmarks.cpu_accuracy schemes    # full, sparse and head-only: accuracy, time, memory

Images are 128 x 128 as the data has them, the batch is 8, the rule SGD with a rate that falls along half a
cosine. Each finished run is a line of --journal, and is not run again. `schemes` takes for each scheme the
rate, of some a factor of two apart, that is best on a held-back fifth of the training images after two epochs
on the others, then trains on all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import ROOT, markdown
from benchmarks.torch_models import last_blocks
from trainlet import CompiledProgram
from trainlet import compile as compile_model
from trainlet.data import Dataset, Samples, load_data
from trainlet.ir import Graph, Value
from trainlet.train.schedule import learning_rate

SIZE, CLASSES, BATCH, SEEDS = 128, 101, 8, (0, 1, 2)
# Of `agree`. At 0.003 without warm-up a difference in rounding grows until accuracies are some points apart.
STEPS, RATE, WARMUP = 200, 0.001, 0.25
EPOCHS, SEARCH_EPOCHS, VALIDATION_SHARE = 5, 2, 0.2
RATES = {"full": (0.002, 0.004, 0.008), "sparse": (0.005, 0.01, 0.02), "head": (0.05, 0.1, 0.2)}
SCHEMES: dict[str, str | Callable[[Graph], Any]] = {"full": "full", "sparse": last_blocks, "head": "head"}


class Journal:
    """Finished runs by their description, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.found = {json.dumps(d["run"], sort_keys=True): d["result"] for d in map(json.loads, lines)}

    def __call__(self, compute: Callable[[], dict[str, Any]], **run: Any) -> dict[str, Any]:
        key = json.dumps(run, sort_keys=True)
        if key not in self.found:
            self.found[key] = compute()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps({"run": run, "result": self.found[key]}) + "\n")
            print(key, self.found[key], file=sys.stderr, flush=True)
        return self.found[key]


@cache
def images(path: Path) -> Dataset:
    """caltech101 as the network takes it, (N, 128, 128, 3), pixels as its ImageNet weights want them."""
    from examples.efficientnet_lite0 import MEAN, STD

    value = Value("x", "f32", (1, SIZE, SIZE, 3))
    return load_data(path, input=value, classes=CLASSES, mean=MEAN / 255, std=STD / 255)


def validation(data: Dataset) -> Dataset:
    """The training images alone, VALIDATION_SHARE of each class in the place of the test images."""
    rng, held = np.random.default_rng(0), np.zeros(len(data.x_train), bool)
    for label in np.unique(data.y_train):
        rows = rng.permutation(np.flatnonzero(data.y_train == label))
        held[rows[: max(1, round(VALIDATION_SHARE * len(rows)))]] = True

    def part(rows: np.ndarray) -> Samples:
        return Samples(data.x_train.stored[rows], data.x_train.transform)

    fit, test = np.flatnonzero(~held), np.flatnonzero(held)
    return replace(
        data, x_train=part(fit), y_train=data.y_train[fit], x_test=part(test), y_test=data.y_train[test]
    )


def module(seed: int) -> Any:
    """The pretrained network with a new head for the classes, drawn from `seed`."""
    import torch

    from examples.efficientnet_lite0 import pretrained

    model = pretrained()
    torch.manual_seed(seed)
    model._fc = torch.nn.Linear(model._fc.in_features, CLASSES)
    return model.eval()


def program(seed: int, scheme: str, threads: int) -> CompiledProgram:
    import torch

    from examples.efficientnet_lite0 import MEAN, STD

    return compile_model(
        module(seed), torch.zeros(1, 3, SIZE, SIZE), scheme=SCHEMES[scheme], batch=BATCH, threads=threads,
        mean=MEAN / 255, std=STD / 255,
    )  # fmt: skip


def batches(data: Dataset, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """STEPS batches (N, C, H, W), their labels and rates; each image once before any comes again."""
    rng, order = np.random.default_rng(seed), np.zeros(0, np.int64)
    for step in range(STEPS):
        if len(order) < BATCH:
            order = rng.permutation(len(data.x_train))
        rows, order = order[:BATCH], order[BATCH:]
        x = np.ascontiguousarray(data.x_train.batch(rows).transpose(0, 3, 1, 2))
        yield x, data.y_train[rows], learning_rate(step, STEPS, 1, RATE, WARMUP)


def agree_trainlet(path: Path, seed: int, threads: int) -> dict[str, Any]:
    data, p = images(path), program(seed, "full", threads)
    losses = [p.step(x, y, lr) for x, y, lr in batches(data, seed)]
    return {"accuracy": p.score(data), "losses": losses}


def agree_torch(path: Path, seed: int, threads: int) -> dict[str, Any]:
    """The same steps by PyTorch, normalisation folded as in our program."""
    import torch

    from benchmarks.torch_folded import fold

    torch.set_num_threads(threads)
    data = images(path)
    model, _ = fold(module(seed))
    model = model.to(memory_format=torch.channels_last)
    for p in model.parameters():
        p.requires_grad_(True)
    rule, losses = torch.optim.SGD(model.parameters(), lr=RATE), []
    for x, y, lr in batches(data, seed):
        rule.param_groups[0]["lr"] = lr
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y).long())
        rule.zero_grad()
        loss.backward()
        rule.step()
        losses.append(float(loss.detach()))
    right = 0
    with torch.no_grad():
        for i in range(0, len(data.x_test), 64):
            x = torch.from_numpy(data.x_test[i : i + 64].transpose(0, 3, 1, 2).copy())
            right += int((model(x).argmax(1).numpy() == data.y_test[i : i + 64]).sum())
    return {"accuracy": right / len(data.x_test), "losses": losses}


def agree(journal: Journal, data: Path, threads: int) -> str:
    """Test accuracy, percent, after 200 steps of all parameters from the same weights on the same batches."""
    rows = []
    for seed in SEEDS:
        about = {"kind": "agree", "seed": seed, "steps": STEPS, "rate": RATE, "warmup": WARMUP}
        found = {
            name: journal(partial(run, data, seed, threads), **about, contender=name)
            for name, run in {"trainlet": agree_trainlet, "torch": agree_torch}.items()
        }
        ours, theirs = (100 * found[n]["accuracy"] for n in ("trainlet", "torch"))
        pairs = list(zip(found["trainlet"]["losses"], found["torch"]["losses"], strict=True))
        first, last = (max(abs(a - b) / abs(b) for a, b in part) for part in (pairs[:20], pairs[-20:]))
        rows.append(
            [
                seed,
                *(f"{v:.2f}" for v in (ours, theirs)),
                f"{ours - theirs:+.2f}",
                f"{first:.0e}",
                f"{last:.0e}",
            ]
        )
    return markdown(
        ["seed", "trainlet", "PyTorch", "difference", "losses apart, first 20 steps", "last 20"], rows
    )


def train(data: Dataset, scheme: str, rate: float, epochs: int, seed: int, threads: int) -> dict[str, Any]:
    """Accuracy on the data's test part, seconds a step of the first epoch and of the later ones, bytes."""
    p = program(seed, scheme, threads)
    steps = len(data.x_train) // BATCH
    result = p.fit(data, epochs=epochs, lr=rate, seed=seed)
    later = float(np.median(result.seconds[1:])) if epochs > 1 else result.seconds[0]
    return {
        "accuracy": p.score(data), "first_s": result.seconds[0] / steps, "later_s": later / steps,
        "cache": result.cache, "bytes": dict(p.host.manifest["bytes"]), "loss": result.loss,
        "resident_bytes": resident_bytes(p),
    }  # fmt: skip


def resident_bytes(p: CompiledProgram) -> int:
    """What loading the saved program and four steps add to the resident memory of a Python process."""
    code = (
        "import sys, numpy as np, trainlet, trainlet.compiled.archive, trainlet.runtime.host\n"
        "def kb(f): return int(next(x for x in open('/proc/self/status') if x.startswith(f)).split()[1])\n"
        f"x = np.zeros(({BATCH}, 3, {SIZE}, {SIZE}), np.float32); y = np.zeros(len(x), np.int32)\n"
        "before = kb('VmRSS'); p = trainlet.load_program(sys.argv[1])\n"
        "for _ in range(4): p.step(x, y, 0.0)\n"
        "print(1024 * (kb('VmRSS') - before))"
    )
    with tempfile.TemporaryDirectory(prefix="trainlet-bench-") as place:
        path = p.save(Path(place) / "program.trainlet")
        said = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
    return int(said.stdout)


def _searched(data: Path, scheme: str, rate: float, threads: int) -> dict[str, Any]:
    return train(validation(images(data)), scheme, rate, SEARCH_EPOCHS, 0, threads)


def _final(data: Path, scheme: str, rate: float, seed: int, threads: int) -> dict[str, Any]:
    return train(images(data), scheme, rate, EPOCHS, seed, threads)


def best_rate(journal: Journal, data: Path, scheme: str, threads: int) -> float:
    """The rate of highest accuracy on held-back training images, with a lower and a higher one tried."""
    found: dict[float, float] = {}
    todo = list(RATES[scheme])
    while todo:
        for rate in todo:
            run = partial(_searched, data, scheme, rate, threads)
            about = {"kind": "rate", "scheme": scheme, "rate": rate, "epochs": SEARCH_EPOCHS}
            found[rate] = journal(run, **about)["accuracy"]
        best = max(found, key=lambda rate: found[rate])
        todo = [rate for rate in (best / 2, 2 * best) if rate not in found]
    return best


def schemes(journal: Journal, data: Path, threads: int, seeds: int) -> str:
    """Test accuracy after 5 epochs of 2,914 images, and what a step of 8 takes."""
    rows = []
    for scheme in SCHEMES:
        rate = best_rate(journal, data, scheme, threads)
        about = {"kind": "scheme", "scheme": scheme, "rate": rate, "epochs": EPOCHS}
        runs = [
            journal(partial(_final, data, scheme, rate, seed, threads), **about, seed=seed)
            for seed in range(seeds)
        ]
        accuracy = ", ".join(f"{100 * r['accuracy']:.1f}" for r in runs)
        size = runs[0]["bytes"]
        ram = sum(size[m] for m in ("arena", "state", "scratch"))
        first, later = (1e3 * min(r[k] for r in runs) for k in ("first_s", "later_s"))
        mb = [f"{b / 1e6:.1f}" for b in (ram, size["flash"], runs[0]["resident_bytes"])]
        rows.append([scheme, f"{rate:g}", accuracy, f"{first:.0f}", f"{later:.0f}", *mb])
    return markdown(
        ["scheme", "rate", "accuracy %", "ms a step, first epoch", "later epochs", "planned RAM MB",
         "constants MB", "resident MB"], rows,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_accuracy", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("what", choices=("agree", "schemes"))
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "caltech101" / "caltech101_128.zip"
    )
    parser.add_argument("--journal", type=Path, default=ROOT / "runs" / "cpu_accuracy.jsonl")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=1, help="of `schemes`")
    args = parser.parse_args()
    journal = Journal(args.journal)
    if args.what == "agree":
        print(agree(journal, args.data, args.threads))
    else:
        print(schemes(journal, args.data, args.threads, args.seeds))


if __name__ == "__main__":
    main()
