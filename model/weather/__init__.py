"""Forecasting: the first task of the trainer, and the stages that train, forecast and plan.

Read `task.py` first; `train.py`, `forecast.py`, `baselines.py` and `plan.py` are the stages. `fields.py` and
`samples.py` read the training store, `names.py` says what names of channels mean. May import everything in `model` and
`pipeline`.
"""
