"""Choosing what to update: measured contributions, and the search that spends a budget on them."""
