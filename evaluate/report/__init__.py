"""Figures of the scores, and the page that explains them.

Imports every part of `evaluate`, and `pipeline`; nothing imports it but the command line. Read first: `stage`, then
`gallery` (which figures there are) and `page` (what stands beside them).
"""
