"""What the stages of forecasting agree on: variables, units, times, the climatology, its configuration and stages.

Read `stages.py` and `variables.py` first. Imports the common parts of `pipeline` only; shared by preprocess, model and
evaluate, which do not import one another.
"""
