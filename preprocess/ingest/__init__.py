"""The regrid stage: from a source to the training store, in slabs, here or on a cluster.

May import: pipeline, preprocess.sources, preprocess.decode, preprocess.regrid.
Read first: preprocess/ingest/stage.py.
"""
