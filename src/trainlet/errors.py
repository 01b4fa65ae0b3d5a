"""Every error a user can meet: what is wrong, where in their model, what to do next."""

from __future__ import annotations


class TrainletError(Exception):
    """Base of all errors that trainlet raises on purpose; the CLI prints them in one line."""


class GraphError(TrainletError):
    """A graph breaks a rule of the IR (shape, dtype, undefined or duplicate value)."""


class ModelError(TrainletError):
    """A model file cannot be read: truncated, not a model, unsupported operators, dynamic shapes."""


class SchemeError(TrainletError):
    """An update scheme does not fit the network it is meant for."""


class UnsupportedGradient(TrainletError):
    """An operator between a trained parameter and the loss has no adjoint."""


class BackendError(TrainletError):
    """A node has no kernel on the chosen target, or the C compiler is missing or failed."""


class DataError(TrainletError):
    """Samples or labels do not fit the network."""


class TrainingError(TrainletError):
    """Training stopped, for example because the loss became NaN."""


class BudgetError(TrainletError):
    """A plan does not fit the memory it was given."""


class CheckpointError(TrainletError):
    """A checkpoint is damaged or belongs to another program."""


class OutputError(TrainletError):
    """A file that was asked for cannot be written."""


class AnalysisError(TrainletError):
    """An analysis of contributions cannot be made, or is of another network or task."""
