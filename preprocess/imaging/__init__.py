"""Hyperspectral images: from a scanner's files, or from simulated plants, to the training store."""
