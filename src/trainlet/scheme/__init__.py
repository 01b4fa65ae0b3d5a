"""What to update: the scheme, its file, its names, its price."""

from trainlet.scheme.head import replace_head, with_head, without_softmax
from trainlet.scheme.layers import Layer, layers
from trainlet.scheme.memory import analytic_bits
from trainlet.scheme.named import PUBLISHED, resolve_scheme, scheme_names
from trainlet.scheme.scheme import Channels, Selection, UpdateScheme, read_scheme, select

__all__ = [
    "PUBLISHED",
    "Channels",
    "Layer",
    "Selection",
    "UpdateScheme",
    "analytic_bits",
    "layers",
    "read_scheme",
    "replace_head",
    "resolve_scheme",
    "scheme_names",
    "select",
    "with_head",
    "without_softmax",
]
