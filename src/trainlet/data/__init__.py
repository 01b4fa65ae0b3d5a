"""Samples and labels for a network: files in, batches of the network's input out."""

from trainlet.data.augment import Augment
from trainlet.data.dataset import Dataset, Samples
from trainlet.data.load import load_data
from trainlet.data.transform import InputTransform

__all__ = ["Augment", "Dataset", "InputTransform", "Samples", "load_data"]
