"""Float inference graph and sample inputs to an int8 graph."""

from trainlet.quantize.int8 import quantize
from trainlet.quantize.samples import dequantize_samples, quantize_samples

__all__ = ["dequantize_samples", "quantize", "quantize_samples"]
