"""Samples to model to checkpoint to forecast.

Contract: the core (everything but samples, checkpoint, train, forecast) imports torch and the standard library
only; only model.parallel and model.training.checkpoint touch torch.distributed.

Letters used throughout: B batch, C channels of all ranks, K channels of this rank, V predicted channels,
H/W grid, L patches, P pixels of a patch, D width, G groups.
"""
