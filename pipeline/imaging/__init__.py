"""What the stages of masked autoencoding agree on: bands, tiles, splits by image, the store, configuration and stages.

Read `stages.py` and `image_store.py` first. Imports the common parts of `pipeline` only; shared by preprocess, model
and evaluate, which do not import one another.
"""
