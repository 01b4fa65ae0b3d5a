"""Adjoints by family; importing this package fills the table."""

from trainlet.train.adjoints import convolution, elementwise, integer, normalization, pooling, shapes  # noqa: F401
