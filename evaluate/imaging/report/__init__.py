"""Figures of reconstructions and traits, and the page that explains them.

Imports every part of `evaluate.imaging`, and `evaluate.page`. Read first: `stage`.
"""
