"""Reading what is scored: labels and valid times, batches of stores, and forecasts in other layouts.

Imports `evaluate.text` and `pipeline`. Read first: `align`.
"""
