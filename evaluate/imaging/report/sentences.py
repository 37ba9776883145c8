"""The findings: sentences made from the scores and nothing else.

Contract: a sentence claims a difference only where the 95% interval of the difference excludes zero; where there are
too few images for intervals it says so. What disappoints is said as plainly as what does not.
"""

from __future__ import annotations

import numpy as np

from evaluate import text
from evaluate.imaging.report.drawing import LOOKS, METHODS
from evaluate.imaging.report.results import BASELINES, Results, Verdict
from evaluate.imaging.report.shown import runs
from evaluate.imaging.scores import METRICS, REGIONS, Region
from evaluate.imaging.traits.stage import PLS, PROBE, UNTRAINED
from evaluate.page.cells import Finding, Score
from pipeline.words import counted

VERDICTS: dict[Verdict, str] = {
    "better": "lower than for {}",
    "unsure": "not significantly different from {}",
    "worse": "higher than for {}",
}
TRAIT_VERDICTS: dict[Verdict, str] = {
    "better": "better than {}",
    "unsure": "not significantly different from {}",
    "worse": "worse than {}",
}
SHORT = {PLS: "PLS", UNTRAINED: "the untrained network"}
"""What sentences call methods."""
MOST_RANGES = 4
"""Of wavelengths that a sentence names."""


def findings(results: Results) -> list[Finding]:
    """One for each region, one for the other scores, one for the bands, one for each trait."""
    found = [_of_region(results, region) for region in results.regions]
    if results.has_intervals:
        found[1:1] = [_other_scores(results), _of_bands(results)]
    return found + [_of_trait(results, trait) for trait in results.facts.traits.names]


def _of_region(results: Results, region: Region) -> Finding:
    ours, best = results.score("network", "rmse", region), results.best_baseline("rmse", region)
    what = REGIONS[region].capitalize()
    value = f"{what}: the network's RMSE is {with_interval(ours)}"
    reference = f"{LOOKS[best].title} {with_interval(results.score(best, 'rmse', region))}"
    verdicts = {name: results.verdict(name, "rmse", region) for name in BASELINES}
    if "unknown" in verdicts.values():
        return Finding(f"{value}; the best baseline is {reference} (too few images to rule out chance).")
    if set(verdicts.values()) == {"better"}:
        return Finding(f"{value}, lower than for every baseline; the best baseline is {reference}.", "good")
    claims = _claims({name: LOOKS[name].title for name in BASELINES}, verdicts, VERDICTS)
    tone = "bad" if "worse" in verdicts.values() else ""
    return Finding(f"{value}, {claims}. The best baseline is {reference}.", tone)


def _claims(named: dict[str, str], verdicts: dict[str, Verdict], words: dict[Verdict, str]) -> str:
    """What the verdicts say, those that are alike together."""
    parts = []
    for key, phrase in words.items():
        alike = [named[name] for name, found in verdicts.items() if found == key]
        parts += [phrase.format(text.join(alike))] if alike else []
    return ", ".join(parts)


def _other_scores(results: Results) -> Finding:
    """Where the other scores say something else than the RMSE."""
    titles = {name: metric.title.replace("Spectral", "spectral") for name, metric in METRICS.items() if name != "rmse"}
    doubts = []
    for name, title in titles.items():
        unbeaten = [LOOKS[b].title for b in BASELINES if results.verdict(b, name, "hidden") != "better"]
        whom = "every baseline" if len(unbeaten) == len(BASELINES) else text.join(unbeaten)
        doubts += [f"{title} (against {whom})"] if unbeaten else []
    if not doubts:
        listed = text.join(list(titles.values()))
        return Finding(f"On hidden patches the network beats every baseline in {listed}.", "good")
    return Finding(f"On hidden patches the network is not significantly better in {text.join(doubts)}.", "bad")


def _of_bands(results: Results) -> Finding:
    wavelengths, unbeaten = results.unbeaten_bands("hidden")
    total = counted(len(wavelengths), "band")
    if not unbeaten.any():
        return Finding(f"In all {total} the network's RMSE on hidden patches is below every baseline's.", "good")
    ranges = [f"{wavelengths[a]:.0f} to {wavelengths[b]:.0f} nm" for a, b in runs(unbeaten)]
    shown = ranges[:MOST_RANGES] + [f"{len(ranges) - MOST_RANGES} more ranges"] * (len(ranges) > MOST_RANGES)
    share = f"{int(unbeaten.sum())} of {total}"
    claim = f"In {share} the network's RMSE on hidden patches is not significantly below every baseline's"
    return Finding(f"{claim}: {text.join(shown)}.", "bad")


def _of_trait(results: Results, trait: str) -> Finding:
    """The probe beside PLS, the untrained network and the best index, with all labels and with the fewest."""
    numbers = results.label_numbers
    most = numbers[-1]
    parts = [_with_labels(results, trait, labelled) for labelled in dict.fromkeys([most, numbers[0]])]
    score = results.trait_score(PROBE, trait, most)
    verdicts = {results.trait_verdict(name, trait, most) for name in _compared(results, trait, most)}
    tone = "bad" if "worse" in verdicts or not score.value > 0 else "good" if verdicts == {"better"} else ""
    nothing = " It cannot predict this trait for unseen plants." if not score.value > 0 else ""
    title = trait.replace("_", " ").capitalize()
    return Finding(f"{title}: with all {most} labelled images the probe has {'. With '.join(parts)}.{nothing}", tone)


def _with_labels(results: Results, trait: str, labelled: int) -> str:
    """R2 of the probe with so many labelled images, and how others compare."""
    beside = _compared(results, trait, labelled)
    named = {
        m: f"{SHORT.get(m, METHODS[m].title)} ({text.score(results.trait_score(m, trait, labelled).value)})"
        for m in beside
    }
    verdicts = {name: results.trait_verdict(name, trait, labelled) for name in beside}
    known = _claims(named, verdicts, TRAIT_VERDICTS) or f"compared with {text.join(list(named.values()))}"
    ours = f"an R² of {with_interval(results.trait_score(PROBE, trait, labelled), r2=True)}: {known}"
    return ours if labelled == results.label_numbers[-1] else f"{labelled} it has {ours}"


def _compared(results: Results, trait: str, labelled: int) -> list[str]:
    """PLS, the untrained network, and the index that is best for a trait."""
    methods = list(results.traits["method"].unique())
    indices = [name for name in methods if name not in (PROBE, UNTRAINED, PLS)]
    best = max(
        indices,
        key=lambda name: np.nan_to_num(results.trait_score(name, trait, labelled).value, nan=-np.inf),
        default="",
    )
    return [name for name in (PLS, UNTRAINED, best) if name in methods]


def with_interval(score: Score, *, r2: bool = False) -> str:
    """A score with its interval in brackets."""
    write = text.score if r2 else text.number
    return (
        f"{write(score.value)} [{write(score.low)}, {write(score.high)}]" if score.has_interval else write(score.value)
    )
