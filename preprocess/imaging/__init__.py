"""From files of hyperspectral images, or from leaf optics, to the store of images and its normals.

readers opens files, calibrate makes reflectance of what they hold, collection checks all images together and cuts them,
ingest and simulate write the store, normals computes mean and standard deviation of every band, and simulation makes
leaves where there are no files. validate and plan look at stores and at what is ahead.

May import: pipeline and pipeline.imaging; no part of preprocess outside this package.
Read first: ingest.py.
"""
