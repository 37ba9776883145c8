"""How the model is cut over ranks: the mesh, the channel plan, the collectives, the layout of the trunk.

Contract: nothing outside this package (and model.training.checkpoint) touches torch.distributed.
"""
