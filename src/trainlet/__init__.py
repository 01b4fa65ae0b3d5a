"""trainlet: a compiler for on-device training.

import trainlet
program = trainlet.compile(model, images, scheme="last:4")     # a torch.nn.Module, or a file
program.fit((images, labels), epochs=5)
model.load_state_dict(program.state_dict())
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "CacheOptions", "CompiledProgram", "MASTERS", "Settings", "TrainletClassifier", "TrainletError",
    "__version__", "adapted_graph", "analyze", "build", "compile", "emit", "evaluate", "export", "inspect",
    "load", "load_program", "plan", "plan_report", "quantize", "schemes", "train", "train_report", "tune",
    "within_budget",
]  # fmt: skip
# Names that are not in trainlet.api: their module, and their name there.
ELSEWHERE = {
    "CacheOptions": ("trainlet.runtime.prefix_cache", "CacheOptions"),
    "CompiledProgram": ("trainlet.compiled", "CompiledProgram"),
    "TrainletClassifier": ("trainlet.estimator", "TrainletClassifier"),
    "TrainletError": ("trainlet.errors", "TrainletError"),
    "compile": ("trainlet.compiled", "compile_model"),
    "load_program": ("trainlet.compiled", "load_program"),
    "tune": ("trainlet.compiled.tune", "tune"),
}

if TYPE_CHECKING:
    from trainlet.api import (
        MASTERS,
        Settings,
        adapted_graph,
        analyze,
        build,
        emit,
        evaluate,
        export,
        inspect,
        load,
        plan,
        plan_report,
        quantize,
        schemes,
        train,
        train_report,
        within_budget,
    )
    from trainlet.compiled import CompiledProgram, load_program
    from trainlet.compiled import compile_model as compile  # noqa: A004
    from trainlet.compiled.tune import tune
    from trainlet.errors import TrainletError
    from trainlet.estimator import TrainletClassifier
    from trainlet.runtime.prefix_cache import CacheOptions


def __getattr__(name: str) -> Any:
    """The names of the API, imported when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    module, own = ELSEWHERE.get(name, ("trainlet.api", name))
    return getattr(importlib.import_module(module), own)


class _Package(ModuleType):
    """`trainlet.plan` is the function, though a folder of this package is called plan (train, quantize) too.

    Importing a subpackage binds its name here; where the API has that name, it stays the API's.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
