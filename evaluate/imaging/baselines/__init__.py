"""Guesses at what is hidden, which need no network: each in the best form that its idea has.

Read first: `models` (what each of them guesses), then `spatial` and `spectral`, the two ways to fill a gap.
"""
