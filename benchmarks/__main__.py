"""All benchmarks: `python -m benchmarks`. Prints their tables and writes their numbers to runs/bench.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import ram_table, step_time
from benchmarks.tables import MODELS, ROOT, replace_between


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the reference networks")
    parser.add_argument("--data", type=Path, default=step_time.DATA, help="images for the steps")
    parser.add_argument("--rounds", type=int, default=100, help="timed steps of each (at least 50)")
    parser.add_argument("--json", type=Path, default=ROOT / "runs" / "bench.json")
    parser.add_argument("--document", type=Path, help="also put the tables into this file, between its marks")
    args = parser.parse_args()
    results = {"memory": ram_table.measure(args.models)}
    tables = {"memory": ram_table.text(results["memory"])}
    print(f"# Memory\n\n{tables['memory']}", flush=True)
    results["step"] = step_time.measure(args.models, args.data, max(50, args.rounds))
    tables["step"] = step_time.text(results["step"])
    print(f"# Time of one training step\n\n{tables['step']}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=1))
    print(f"numbers: {args.json}")
    if args.document:
        text = args.document.read_text()
        for name, table in tables.items():
            text = replace_between(text, name, table)
        args.document.write_text(text)


if __name__ == "__main__":
    main()
