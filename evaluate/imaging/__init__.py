"""Scores reconstructed images beside baselines, reads traits from features, and writes the report.

Layers, each importing only those after it:

- `report`: figures and the page.
- `stage`: the score stage, from stores to tables.
- `traits`: what features, indices and spectra tell of a leaf.
- `tables`, `sums`: scores from sums per image; `baselines`: guesses that the network has to beat.
- `reading`: which reconstruction belongs to which tile; `scores`, `colour`: pure functions of arrays.

Read first: `scores` for the definitions, `stage` for how a run is scored.
"""
