"""Weights from and for other programs: published ClimaX weights, one plain file, the start of a fine-tuning.

Read `start.py` first. May import everything in `model` and `pipeline`.
"""
