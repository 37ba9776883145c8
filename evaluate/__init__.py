"""Scores forecasts against the truth and shows them: alignment, baselines, metrics, tables, maps, the report.

Layers, each importing only those after it (the import linter checks it), and of other packages only `pipeline`:

- `report`: figures and the page. Beside it `imaging`, the scores and the report of reconstructed images, which uses the
  last two layers only.
- `scoring`: the score stage, from stores to tables.
- `baselines`: forecasts that every model has to beat; beside it `metrics`, the scores of labelled arrays, and
  `edges`, whether fields show the patches they were predicted in.
- `reading`: which forecast belongs to which truth, and reading both; beside it `statistics` and `aggregation`, what is
  summed and how sums merge.
- `page`: what every report shares: the style of figures, cells of tables, templates.
- `bootstrap`: intervals; `text`: how leads, dates, numbers and units are written.

Read first: `metrics` for the definitions, `scoring.stage` for how a run is scored.
"""
