"""trainlet: a compiler for on-device training.

import trainlet
trainlet.train("net.onnx", "data.npz", trainlet.Settings(scheme="last:4"), epochs=10, lr=0.01)
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "MASTERS", "Settings", "TrainletError", "__version__", "adapted_graph", "analyze", "build", "compile",
    "evaluate", "export", "inspect", "load", "plan", "plan_report", "quantize", "schemes", "train",
    "train_report",
]  # fmt: skip

if TYPE_CHECKING:
    from trainlet.api import (
        MASTERS,
        Settings,
        adapted_graph,
        analyze,
        build,
        compile,  # noqa: A004
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
    )
    from trainlet.errors import TrainletError


def __getattr__(name: str) -> Any:
    """The names of the API, imported when they are first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from trainlet import api, errors

    return getattr(errors if name == "TrainletError" else api, name)


class _Package(ModuleType):
    """`trainlet.plan` is the function, though a folder of this package is called plan (train, quantize) too.

    Importing a subpackage binds its name here; where the API has that name, it stays the API's.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
