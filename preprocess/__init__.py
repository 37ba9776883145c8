"""From a source of atmospheric data to the training store and its normals.

sources opens the data, decode gives every file's fields the catalogue's names and units, regrid and regridding put them
on the target grid, ingest writes the store, normals computes means and the climatology, and simulation makes data where
there are none. export and validate work on the finished store.

May import: pipeline; never model, evaluate or torch.
Read first: preprocess/ingest/stage.py, the regrid stage, which uses most of the others.
"""
