"""The op table, one family of ops a file."""

from trainlet.ir.ops import (  # noqa: F401  (importing a family registers its ops)
    convolution,
    elementwise,
    gradients,
    hidden,
    integer,
    losses,
    normalization,
    optimizers,
    pooling,
    shapes,
    stream,
)
from trainlet.ir.ops.table import OPS, Call, Op, infer_node

__all__ = ["OPS", "Call", "Op", "infer_node"]
