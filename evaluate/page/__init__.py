"""What every report shares, whatever it reports: the style of figures, pictures, cells, receipts, templates.

Imports `evaluate.text` and `pipeline` only. Read first: `style`.
"""
