"""Fast fp32 programs for processors with vector registers and threads: laptops, phones, Raspberry Pis."""

from trainlet.backends.cpu import convolution, depthwise, elementwise  # noqa: F401  (fill the table)
from trainlet.backends.cpu.emit import plan_program, write_program
from trainlet.backends.cpu.target import ISAS, Target, native_isa
from trainlet.backends.cpu.writer import KERNELS, falls_back

__all__ = ["ISAS", "KERNELS", "Target", "falls_back", "native_isa", "plan_program", "write_program"]
