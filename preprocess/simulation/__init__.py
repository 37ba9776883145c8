"""The simulated atmosphere: a source of data that needs no download, and forecasts by its own core.

May import: pipeline, preprocess.ingest, preprocess.sources (for the twins' regridding), preprocess.npz.
Read first: preprocess/simulation/stage.py, then setup.py; the physics is in atmosphere.py and forcing.py.
"""
