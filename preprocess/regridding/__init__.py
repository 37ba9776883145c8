"""Regridding weights: computed here or by ESMF, and kept in files; preprocess/regrid.py applies them.

May import: pipeline, preprocess.npz.
Read first: preprocess/regridding/weights.py.
"""
