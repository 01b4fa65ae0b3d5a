"""A module with its BatchNorms folded into the convolutions before them, as our graphs are."""

from __future__ import annotations

from typing import Any

from benchmarks.torch_models import WORKLOADS


def folded_module(workload: str) -> tuple[Any, dict[str, str]]:
    """The module of a workload, folded."""
    return fold(WORKLOADS[workload].module(0))


def fold(module: Any) -> tuple[Any, dict[str, str]]:
    """The module, changed in place, and where the bias that our graph names after a BatchNorm is now.

    Each BatchNorm2d that follows a Conv2d among the children of one module is folded (torch's own fusion).
    """
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    names: dict[str, str] = {}
    for path, parent in list(module.named_modules()):
        before: tuple[str, Any] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None:
                at, conv = before
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight,
                    conv.bias,
                    child.running_mean,
                    child.running_var,
                    child.eps,
                    child.weight,
                    child.bias,
                )
                setattr(parent, name, nn.Identity())
                dot = f"{path}." if path else ""
                names[f"{dot}{name}.bias"] = f"{dot}{at}.bias"
            before = (name, child) if isinstance(child, nn.Conv2d) else None
    return module.eval(), names
