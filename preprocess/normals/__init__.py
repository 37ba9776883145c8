"""The normals stage: means, standard deviations and the climatology of the training periods.

May import: pipeline.
Read first: preprocess/normals/stage.py; the arithmetic is in moments.py.
"""
