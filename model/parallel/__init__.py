"""How a network lies on several ranks: the mesh, the channel plan, the collectives, the layout of its trunk.

Read `wrap.py` first. Nothing outside this package and `model.training.checkpoint` touches torch.distributed. Imports
torch and `model.network`; `launch` and `torchrun`, which start ranks, also the project's logs.
"""
