"""The application: its commands, and what becomes of an error."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperGroup

import trainlet
from trainlet.cli import choosing, deploy, device, looking, searching, text, training, tuning
from trainlet.errors import TrainletError


class Commands(TyperGroup):
    """Says every error of ours in one line on stderr, and what is left when the user stops a command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except TrainletError as error:
            print(f"error: {_one_line(str(error))}", file=sys.stderr)
            raise typer.Exit(1) from None
        except KeyboardInterrupt as stop:
            print(f"stopped{f': {stop}' if str(stop) else ''}", file=sys.stderr)
            raise typer.Exit(130) from None


def _one_line(message: str) -> str:
    return " ".join(message.split())


app = typer.Typer(
    cls=Commands,
    help="A compiler for on-device training: bring a pretrained network, get a C training program.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    looking.inspect, looking.schemes, looking.plan, deploy.compile_, deploy.pack, tuning.tune,
    choosing.analyze, searching.search, training.train, training.evaluate, deploy.export, deploy.convert,
    deploy.quantize, device.boards, device.emulate, text.opt,
):  # fmt: skip
    app.command(name={"compile_": "compile", "evaluate": "eval"}.get(command.__name__))(command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"trainlet {trainlet.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A compiler for on-device training: bring a pretrained network, get a C training program."""
