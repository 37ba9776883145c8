"""Samples to network to checkpoint to forecast.

Read `dchag.py` first: the forecasting network, on one rank and on many. `network` holds what networks are made of,
`parallel` how they lie on several ranks, `training` the trainer, which knows a `Task` and nothing of weather; `weather`
is the first workload on top of them, `weights` what comes from and goes to other programs' files. The core (dchag,
network, parallel) imports torch and the standard library only, so that it runs on a GPU machine's plain python; nothing
here imports dask, ESMF, JAX, or another stage.

Letters used throughout: B batch, C channels of all ranks, K channels of this rank, V predicted channels,
H/W grid, L patches, P pixels of a patch, D width, G groups.
"""
