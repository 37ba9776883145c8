"""Leaf traits read from features, from spectra and from indices, all fitted and judged on the same patches.

Read first: `regressions` (what is fitted), then `stage` (on which images).
"""
