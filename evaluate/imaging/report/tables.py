"""Tables of the page: every model in every region, every method for every trait."""

from __future__ import annotations

from evaluate import text
from evaluate.imaging.report.drawing import LOOKS, METHODS
from evaluate.imaging.report.results import BASELINES, Results
from evaluate.imaging.report.trait_figures import unit_text
from evaluate.imaging.scores import METRICS, REGIONS, Region
from evaluate.imaging.sums import MODELS, NETWORK
from evaluate.imaging.traits.stage import PROBE
from evaluate.page.cells import NO_SCORE, Cell, Group, Row, Score, cell
from pipeline.imaging.image_store import TRAIT_UNITS


def score_columns() -> list[tuple[str, str]]:
    """Titles and units of the columns after the first."""
    return [(metric.title, "" if metric.unit == "1" else metric.unit) for metric in METRICS.values()]


def score_groups(results: Results) -> list[Group]:
    """One group for each region, one row for each model."""
    found = []
    for region in results.regions:
        rows = [Row(LOOKS[model].title, _score_cells(results, model, region)) for model in MODELS]
        images = results.scores.loc[results.scores["region"] == region, "n_images"].max()
        found.append(Group(REGIONS[region].capitalize(), rows, f"{int(images)} images"))
    return found


def _score_cells(results: Results, model: str, region: Region) -> list[Cell]:
    cells = []
    for name, metric in METRICS.items():
        if region not in metric.regions:
            cells.append(Cell("–"))
            continue
        tone = ""
        if model == NETWORK:
            verdicts = {results.verdict(other, name, region) for other in BASELINES}
            tone = "good" if verdicts == {"better"} else "bad" if "worse" in verdicts else ""
        write = text.score if metric.unit == "1" else text.number
        cells.append(cell(results.score(model, name, region), write, tone=tone))
    return cells


def trait_columns(results: Results) -> list[tuple[str, str]]:
    """R2 and RMSE of each trait."""
    columns = []
    for trait in results.facts.traits.names:
        title = trait.replace("_", " ")
        columns += [(f"R² {title}", ""), (f"RMSE {title}", unit_text(TRAIT_UNITS[trait]))]
    return columns


def trait_groups(results: Results) -> list[Group]:
    """One group for each number of labelled images, all of them first; one row for each method."""
    found, numbers = [], results.label_numbers
    for labelled in reversed(numbers):
        few = results.traits[results.traits["labelled_images"] == labelled]
        draws = int(few["draws"].max())
        title = f"{labelled} labelled images" if draws > 1 else f"All {labelled} labelled images"
        rows = [Row(METHODS[str(m)].title, _trait_cells(results, str(m), labelled)) for m in few["method"].unique()]
        found.append(Group(title, rows, f"mean of {draws} draws" if draws > 1 else ""))
    return found


def _trait_cells(results: Results, method: str, labelled: int) -> list[Cell]:
    table, cells = results.traits, []
    for trait in results.facts.traits.names:
        score = results.trait_score(method, trait, labelled)
        others = [m for m in table["method"].unique() if m != PROBE]
        verdicts = {results.trait_verdict(m, trait, labelled) for m in others} if method == PROBE else set()
        tone = "good" if verdicts == {"better"} else "bad" if "worse" in verdicts else ""
        rows = table[(table["method"] == method) & (table["trait"] == trait) & (table["labelled_images"] == labelled)]
        rmse = Score(*rows[["rmse", "rmse_ci_low", "rmse_ci_high"]].to_numpy(float)[0]) if len(rows) else NO_SCORE
        cells += [cell(score, text.score, tone=tone), cell(rmse, text.number)]
    return cells
