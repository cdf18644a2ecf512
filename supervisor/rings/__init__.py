"""Rings and the other descriptors of workers: stored for successors, given to the workers that need them."""
