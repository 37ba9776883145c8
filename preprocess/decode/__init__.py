"""What a raw dataset holds, and its fields in the catalogue's names, units and dimensions.

May import: pipeline.
Read first: preprocess/decode/survey.py (with identify.py and axes.py), then canonical.py; partial_chunks.py only makes
reading faster.
"""
