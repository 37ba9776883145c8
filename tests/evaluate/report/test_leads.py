"""Which leads are shown."""

from __future__ import annotations

import pytest

from evaluate.report.leads import few, logarithmic, mapped, of_cases

MANY = [24, 72, 120, 168, 240, 336, 720]
THREE = [168, 336, 720]


def test_few_of_many_leads() -> None:
    """Catches a lead shown twice, the first or the last left out, and a week left out of the usual list."""
    assert few(MANY) == [24, 72, 168, 240, 720]
    assert few(THREE) == THREE
    assert few([24], most=3) == [24]
    for count in range(1, 40):
        leads = list(range(6, 6 * count + 1, 6))
        shown = few(leads)
        assert shown == sorted(set(shown))
        assert (shown[0], shown[-1], len(shown)) == (leads[0], leads[-1], min(count, 5))


def test_wishes_come_first() -> None:
    """Leads that a configuration names are drawn, all of them and in order."""
    assert mapped(MANY, chosen=[720, 24, 72, 120, 168, 240]) == [24, 72, 120, 168, 240, 720]
    assert mapped(MANY, chosen=[]) == few(MANY)


@pytest.mark.parametrize(("leads", "cases"), [(MANY, [24, 168]), (THREE, [168, 720]), ([24], [24])])
def test_single_forecasts(leads: list[int], cases: list[int]) -> None:
    """Catches a month ahead as one of two forecasts, where there are leads in between."""
    assert of_cases(leads) == cases


def test_axis() -> None:
    """Three leads of weeks stay on a linear axis."""
    assert logarithmic(MANY)
    assert not logarithmic(THREE)
    assert not logarithmic([24, 48, 72, 96, 120])
