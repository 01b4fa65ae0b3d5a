"""From a training graph to a program: order, lifetimes, offsets, sizes."""
