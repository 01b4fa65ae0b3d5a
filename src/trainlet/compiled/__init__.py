"""A model compiled for this machine and trained from Python: `trainlet.compile(…)` and what it returns."""

from trainlet.compiled.archive import load_program
from trainlet.compiled.compile import compile_model
from trainlet.compiled.program import CompiledProgram, FitResult

__all__ = ["CompiledProgram", "FitResult", "compile_model", "load_program"]
