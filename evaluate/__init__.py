"""Scores forecasts against the truth and shows them: alignment, baselines, metrics, maps, report."""
