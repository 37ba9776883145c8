"""Opening files of hyperspectral images, whatever their format.

May import: pipeline and pipeline.imaging; no part of preprocess outside imaging.
Read first: raw_image.py, then opening.py.
"""
