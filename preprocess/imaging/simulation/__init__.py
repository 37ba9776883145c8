"""Simulated hyperspectral images of poplar plants, with the true leaf traits of every pixel.

May import: pipeline.imaging for the names of traits; nothing else of preprocess.
Read first: settings.py, then scene.py; leaf optics are in prospect.py.
"""
