"""Opening files of hyperspectral images, whatever their format; read `raw_image.py` first, then `opening.py`."""
