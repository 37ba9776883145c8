"""The findings: sentences made from the scores and nothing else.

Contract: a sentence claims a difference only where the 95% interval of the score excludes zero; where there is no
interval it says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluate.page.cells import Finding
from evaluate.report.results import Results, tone
from evaluate.scoring.score_table import Score
from evaluate.text import join, lead_title, lead_titles, score
from pipeline.weather.variables import parse_channel

CLAIMS = {
    "good": "beats climatology at {}",
    "level": "is on a par with climatology at {}",
    "": "does not differ significantly from climatology at {}",
    "bad": "is worse than climatology at {}",
    "unknown": "has a skill against climatology of {} (too few init times for an interval)",
}
"""By the tone of the skill."""

MOST_SKILLS = 3
"""Leads that are listed with a skill each."""


def findings(results: Results) -> list[Finding]:
    """One for each channel against climatology and persistence, and one over all channels at each lead."""
    return [_of_channel(results, channel) for channel in results.channels] + _over_all(results)


def _of_channel(results: Results, channel: str) -> Finding:
    parts: dict[str, dict[int, Score]] = {key: {} for key in CLAIMS}
    for lead in results.leads:
        skill = results.score(channel, lead, "skill")
        parts[tone(skill) if skill.has_interval else "unknown"][lead] = skill
    claims = "; ".join(CLAIMS[key].format(_listed(skills)) for key, skills in parts.items() if skills)
    persistence = f" {_against_persistence(results, channel)}" if "persistence" in results.baselines else ""
    overall = "good" if parts["good"] else "bad" if parts["bad"] else ""
    return Finding(f"{parse_channel(channel).title}: {claims}.{persistence}", overall)


def _listed(skills: Mapping[int, Score]) -> str:
    """Leads with their skills; of many, only the skills of the first and the last."""
    leads = list(skills)
    if not skills[leads[0]].has_interval:
        return join([f"{score(s.value)} at {lead_title(h)}" for h, s in skills.items()])
    said = {h: f"skill {score(s.value)} [{score(s.low)}, {score(s.high)}]" for h, s in skills.items()}
    if len(leads) <= MOST_SKILLS:
        return join([f"{lead_title(h)} ({said[h]})" for h in leads])
    first, last = leads[0], leads[-1]
    return f"{lead_titles(leads)} ({said[first]} at {lead_title(first)}, {said[last]} at {lead_title(last)})"


def _against_persistence(results: Results, channel: str) -> str:
    scores = {h: results.score(channel, h, "skill_persistence") for h in results.leads}
    better = [lead for lead, skill in scores.items() if skill.value > 0]
    significant = [lead for lead, skill in scores.items() if skill.low > 0]
    if len(significant) == len(scores):
        return "RMSE is below persistence's at every lead."
    if not better:
        return "RMSE is not below persistence's at any lead."
    doubt = "" if better == significant else " (not significantly at every one)"
    worse = [lead for lead in scores if lead not in better]
    above = f", above it at {lead_titles(worse)}" if worse else ""
    return f"RMSE is below persistence's at {lead_titles(better)}{doubt}{above}."


def _over_all(results: Results) -> list[Finding]:
    frame = results.table.frame
    rows = frame[(frame["model"] == results.model) & (frame["metric"] == "skill") & (frame["region"] == "globe")]
    counts: dict[str, list[int]] = {}
    for lead in results.leads:
        at = rows[rows["lead"] == lead]
        if len(at) < 5 or not np.isfinite(at["ci_low"]).all():
            return []
        tones = [tone(Score(0.0, low, high)) for low, high in zip(at["ci_low"], at["ci_high"], strict=True)]
        better, worse = tones.count("good"), tones.count("bad")
        similar = len(at) - better - worse
        counts.setdefault(f"{better} better, {similar} similar, {worse} worse", []).append(lead)
    total = len(rows) // len(results.leads)
    said = "; ".join(f"{count} at {lead_titles(leads)}" for count, leads in counts.items())
    return [Finding(f"All {total} channels against climatology: {said}.")]
