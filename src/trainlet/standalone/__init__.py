"""A training program for the command line of another machine: C sources, a library, an executable."""

from trainlet.standalone.build import TARGETS, build_standalone, compile_standalone
from trainlet.standalone.dataset import write_dataset

__all__ = ["TARGETS", "build_standalone", "compile_standalone", "write_dataset"]
