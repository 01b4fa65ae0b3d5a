"""A PyTorch module by its content, so that one that was read before need not be exported again."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainlet.compiled.cache import package_digest

if TYPE_CHECKING:
    from hashlib import _Hash

PLAIN = (str, int, float, bool, bytes, complex, type(None))
# What torch.nn.Module keeps of itself: parameters and children are hashed on their own, hooks must be empty.
OWN = ("_parameters", "_buffers", "_modules", "training")


class _Unknown(Exception):
    """Something whose content cannot be told: then there is no key."""


def module_key(module: Any, example_inputs: Any, norm: str) -> str | None:
    """Hash of a module's tensors, attributes and source files, and of what it is called with.

    None where an attribute is neither plain data nor a function nor an object of such, or a hook is set: the
    module is then exported. What is not seen: a global variable of the user's that forward reads.
    """
    import torch

    state = hashlib.sha256(json.dumps([norm, torch.__version__, package_digest()]).encode())
    inputs = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    try:
        for x in inputs:
            state.update(f"{tuple(x.shape)} {x.dtype}".encode())
        for name, part in module.named_modules():
            state.update(f"{name} {_source(type(part))}".encode())
            for key, value in sorted(vars(part).items()):
                if key not in OWN:
                    _add(state, key, value, 0)
        tensors = (*module.named_parameters(), *module.named_buffers())
        for name, tensor in tensors:
            state.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            state.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    except (_Unknown, AttributeError, TypeError, RuntimeError):
        return None
    return state.hexdigest()[:32]


def _add(state: _Hash, key: str, value: Any, depth: int) -> None:
    import torch

    state.update(f"{key}:{type(value).__qualname__}=".encode())
    if depth > 6:
        raise _Unknown(key)
    if isinstance(value, (*PLAIN, torch.dtype, torch.device)):
        state.update(repr(value).encode())
    elif isinstance(value, list | tuple | set | frozenset):
        for i, v in enumerate(sorted(value, key=repr) if isinstance(value, set | frozenset) else value):
            _add(state, str(i), v, depth + 1)
    elif isinstance(value, Mapping):
        for k in sorted(value, key=repr):
            _add(state, repr(k), value[k], depth + 1)
    elif isinstance(value, type):
        state.update(_source(value).encode())
    elif inspect.isfunction(value) or inspect.isbuiltin(value):
        state.update(_function(value).encode())
    elif isinstance(value, torch.Tensor | torch.nn.Module) or not hasattr(value, "__dict__"):
        raise _Unknown(key)
    else:
        state.update(_source(type(value)).encode())
        _add(state, "", vars(value), depth + 1)


def _function(f: Callable[..., Any]) -> str:
    if getattr(f, "__closure__", None):
        raise _Unknown(f.__qualname__)
    if inspect.isbuiltin(f):
        return f"{f.__module__}.{f.__qualname__}"
    return f"{f.__module__}.{f.__qualname__} {_source(f)}"


_FILES: dict[tuple[str, int], str] = {}


def _source(thing: Any) -> str:
    """Name of a class or function, and the hash of the file that defines it."""
    try:
        path = inspect.getsourcefile(thing)
    except TypeError:
        path = None
    if path is None or not Path(path).is_file():
        raise _Unknown(str(thing))
    seen = (path, Path(path).stat().st_mtime_ns)
    if seen not in _FILES:
        _FILES[seen] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return f"{thing.__module__}.{thing.__qualname__} {_FILES[seen]}"
