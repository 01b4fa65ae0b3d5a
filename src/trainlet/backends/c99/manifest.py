"""What a loader must know of an emitted program: names, sizes, offsets."""

from __future__ import annotations

from typing import Any

from trainlet.backends.c99.writer import identifier
from trainlet.ir import Value
from trainlet.plan.program import Function, Program

FORMAT = 1


def _value(v: Value) -> dict[str, Any]:
    quant = None if v.quant is None else {"scale": v.quant.scale, "zero_point": v.quant.zero_point}
    return {"name": v.name, "dtype": v.dtype, "shape": list(v.shape), "bytes": v.bytes, "quant": quant}


def _input_offset(f: Function) -> int | None:
    sample = f.locations[f.graph.inputs[0].name] if f.graph.inputs else None
    return sample.offset if sample is not None and sample.memory == "arena" else None


def manifest(program: Program) -> dict[str, Any]:
    """JSON-ready description of the program, its plan and its state."""
    main, module = program.main, program.module
    return {
        "format": FORMAT,
        "name": program.name,
        "prefix": identifier(program.name),
        "scheme": module.selection.name,
        "loss": module.loss,
        "optimizer": vars(module.optimizer),
        "training_function": "step" if "step" in program.functions else "accumulate",
        "batch": main.graph.inputs[0].shape[0],
        "input": {**_value(program.functions["predict"].graph.inputs[0]), "where": program.sample},
        "label": _value(main.graph.inputs[1]),
        "output": _value(program.functions["predict"].graph.outputs[0]),
        "bytes": dict(program.bytes),
        "functions": {
            name: {
                "peak_bytes": f.peak_bytes,
                "lower_bound_bytes": f.lower_bound_bytes,
                "boundary": [_value(v) for v in f.boundary],
                "prefix_steps": f.prefix_steps,
                "steps": len(f.graph.nodes),
                "input_offset": _input_offset(f),  # where samples lie in the arena
            }
            for name, f in program.functions.items()
        },
        "state": [{**_value(t.value), "offset": program.state_offsets[k]} for k, t in program.state.items()],
        "parameters": [
            {
                "name": p.name,
                "channels": None if p.channels is None else list(p.channels),
                "depthwise": p.layer.depthwise,
                "redrawn": p.redrawn,
                "master": p.master,
                "integer": p.integer,
                "tensors": {role: t.value.name for role, t in p.tensors.items()},
            }
            for p in module.parameters
        ],
    }
