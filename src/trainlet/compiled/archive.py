"""A compiled program with its state in one file: a zip of C sources, the network, and safetensors."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trainlet.compiled.cache import DONE, entry
from trainlet.compiled.origin import load_origin, save_origin
from trainlet.compiled.program import CompiledProgram
from trainlet.compiled.samples import SampleForm
from trainlet.data import InputTransform
from trainlet.errors import CheckpointError
from trainlet.ir.text import load_graph, save_graph
from trainlet.output import whole_files
from trainlet.plan.budget import MemoryChoice
from trainlet.runtime.checkpoint import load_checkpoint, save_checkpoint
from trainlet.scheme import resolve_scheme, select
from trainlet.train.parameters import parameters

FORMAT = 1
ABOUT, PROGRAM, NETWORK, STATE, ORIGIN = (
    "about.json",
    "program/",
    "network.tl",
    "state.safetensors",
    "origin.safetensors",
)


def save_program(program: CompiledProgram, path: Path) -> Path:
    """Write `program` to `path`. Raises OutputError where that cannot be written."""
    with (
        whole_files(path) as folder,
        zipfile.ZipFile(folder / path.name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z,
    ):
        for file in sorted(program.host.folder.rglob("*")):
            if file.is_file() and file.name != DONE:
                z.write(file, PROGRAM + file.relative_to(program.host.folder).as_posix())
        with TemporaryDirectory(prefix="trainlet-") as made:
            save_graph(program.graph, Path(made) / NETWORK)
            save_checkpoint(Path(made) / STATE, program.host.tensors(), {})
            if program.origin is not None:
                save_origin(program.origin, Path(made) / ORIGIN)
            for file in sorted(Path(made).iterdir()):
                z.write(file, file.name)
        z.writestr(ABOUT, json.dumps(_about(program)))
    return path


def _about(program: CompiledProgram) -> dict[str, Any]:
    from trainlet import api

    settings, form = program.settings, program.form
    selection = select(resolve_scheme(settings.scheme, program.graph), program.graph)
    return {
        "format": FORMAT,
        "key": program.host.folder.name,
        "program": api.checkpoint_meta(program.graph.name, settings, selection),
        "perm": list(form.perm),
        "mean": list(form.transform.mean),
        "std": list(form.transform.std),
        "memory": None if program.memory is None else asdict(program.memory),
    }


def load_program(path: str | Path) -> CompiledProgram:
    """A program that `CompiledProgram.save` wrote, with its state; the model it came from is not needed.

    It is built for this machine if this machine has not built it yet. Raises CheckpointError where the file
    is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no program at {path}")
    try:
        with zipfile.ZipFile(path) as z, TemporaryDirectory(prefix="trainlet-") as folder:
            about = json.loads(z.read(ABOUT))
            if about["format"] != FORMAT:
                raise CheckpointError(f"{path} has format {about['format']}, this trainlet reads {FORMAT}")
            z.extractall(folder, [n for n in z.namelist() if not n.startswith(PROGRAM)])
            return _open(z, about, Path(folder))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} is damaged or was not written by CompiledProgram.save ({error})"
        ) from None


def _open(z: zipfile.ZipFile, about: dict[str, Any], folder: Path) -> CompiledProgram:
    from trainlet import api
    from trainlet.runtime.host import HostProgram

    def extract(target: Path) -> dict[str, Any]:
        for name in z.namelist():
            if name.startswith(PROGRAM) and ".." not in name:
                file = target / name.removeprefix(PROGRAM)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(z.read(name))
        return {"memory": about["memory"]}

    sources, _ = entry(about["key"], extract)
    host = HostProgram(sources)
    host.restore(load_checkpoint(folder / STATE)[0])
    settings, graph = api.settings_of(about["program"]), load_graph(folder / NETWORK)
    rule = settings.update_rule()
    selection = select(resolve_scheme(settings.scheme, graph), graph)
    memory = MemoryChoice.of(about["memory"])
    value = graph.inputs[0]
    transform = InputTransform(value.dtype, value.quant, tuple(about["mean"]), tuple(about["std"]))
    form = SampleForm(value, tuple(about["perm"]), transform)
    origin = load_origin(folder / ORIGIN) if (folder / ORIGIN).is_file() else None
    trained = tuple(parameters(graph, selection, rule))
    return CompiledProgram(host, graph, trained, settings, form, memory, origin)
