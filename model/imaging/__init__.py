"""Masked autoencoding of images with many bands: the second task of the trainer, and its stages.

Read `task.py` first, then `autoencoder.py` (the network) and `masks.py` (what is hidden); `train.py`, `reconstruct.py`
and `plan.py` are the stages. May import everything in `model` but `model.weather` and `model.weights`, and `pipeline`.
"""
