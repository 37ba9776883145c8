"""Forecasts that every model has to beat: persistence, climatology, damped persistence and linear regression.

Imports `evaluate.reading` and `pipeline`. Read first: `simple`; `fit` makes those with fitted numbers.
"""
