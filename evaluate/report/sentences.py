"""The findings: sentences made from the scores and nothing else.

Contract: a sentence claims a difference only where the 95% interval of the score excludes zero; where there is no
interval it says so.
"""

from __future__ import annotations

import numpy as np

from evaluate.page.cells import Finding
from evaluate.report.results import Results, tone
from evaluate.scoring.score_table import Score
from evaluate.text import join, lead_title, score
from pipeline.weather.variables import parse_channel

CLAIMS = {
    "good": "beats climatology at {}",
    "level": "is on a par with climatology at {}",
    "": "does not differ significantly from climatology at {}",
    "bad": "is worse than climatology at {}",
    "unknown": "has skill against climatology {} (too few init times for an interval)",
}
"""By the tone of the skill."""


def findings(results: Results) -> list[Finding]:
    """One for each channel against climatology and persistence, and one over all channels at each lead."""
    return [_of_channel(results, channel) for channel in results.channels] + _over_all(results)


def _of_channel(results: Results, channel: str) -> Finding:
    parts: dict[str, list[str]] = {key: [] for key in CLAIMS}
    for lead in results.leads:
        skill = results.score(channel, lead, "skill")
        if skill.has_interval:
            value, low, high = map(score, skill)
            parts[tone(skill)].append(f"{lead_title(lead)} (skill {value} [{low}, {high}])")
        else:
            parts["unknown"].append(f"{score(skill.value)} at {lead_title(lead)}")
    claims = "; ".join(CLAIMS[key].format(join(leads)) for key, leads in parts.items() if leads)
    persistence = f" {_against_persistence(results, channel)}" if "persistence" in results.baselines else ""
    overall = "good" if parts["good"] else "bad" if parts["bad"] else ""
    return Finding(f"{parse_channel(channel).title}: {claims}.{persistence}", overall)


def _against_persistence(results: Results, channel: str) -> str:
    scores = {lead_title(h): results.score(channel, h, "skill_persistence") for h in results.leads}
    better = [lead for lead, skill in scores.items() if skill.value > 0]
    significant = [lead for lead, skill in scores.items() if skill.low > 0]
    if len(significant) == len(scores):
        return "Its RMSE is below persistence's at every lead."
    if not better:
        return "Its RMSE is not below persistence's at any lead."
    doubt = "" if better == significant else " (not significantly at all of them)"
    worse = [lead for lead in scores if lead not in better]
    return f"Its RMSE is below persistence's at {join(better)}{doubt}{f', above it at {join(worse)}' * bool(worse)}."


def _over_all(results: Results) -> list[Finding]:
    frame = results.table.frame
    rows = frame[(frame["model"] == results.model) & (frame["metric"] == "skill") & (frame["region"] == "globe")]
    counts = []
    for lead in results.leads:
        at = rows[rows["lead"] == lead]
        if len(at) < 5 or not np.isfinite(at["ci_low"]).all():
            return []
        tones = [tone(Score(0.0, low, high)) for low, high in zip(at["ci_low"], at["ci_high"], strict=True)]
        better, worse = tones.count("good"), tones.count("bad")
        similar = len(at) - better - worse
        counts.append(f"{better} better, {similar} similar, {worse} worse at {lead_title(lead)}")
    total = len(rows) // len(results.leads)
    return [Finding(f"Of all {total} channels, against climatology: {'; '.join(counts)}.")]
