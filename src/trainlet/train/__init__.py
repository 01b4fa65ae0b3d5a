"""From a network and a selection to its training graphs."""

from trainlet.train.autodiff import LOSSES, TrainingModule, derive
from trainlet.train.parameters import Optimizer, Parameter

__all__ = ["LOSSES", "Optimizer", "Parameter", "TrainingModule", "derive"]
