"""Opening files of hyperspectral images, whatever their format; read `raw_image.py` first, then `opening.py`.

May import: pipeline and pipeline.imaging; no part of preprocess outside imaging.
"""
