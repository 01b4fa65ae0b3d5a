"""Choosing what to update: measured contributions of biases and weights, and the search that spends a budget on them."""
