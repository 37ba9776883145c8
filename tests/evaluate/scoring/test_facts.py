"""Facts beside scores, as receipts hold them."""

from __future__ import annotations

import pytest

from evaluate.scoring.facts import ScoreFacts
from tests.evaluate.report.test_headline import FACTS


def test_facts_of_another_version_are_one_message() -> None:
    """Catches pydantic's own list of errors, and addresses of its pages, shown to who draws a report."""
    content = FACTS.to_json()
    del content["grid"]
    for wrong in (content, {**FACTS.to_json(), "n_init": "many", "lead_hours": 3}):
        with pytest.raises(
            ValueError, match=r"^facts of the scores must be .* run python -m pipeline score again$"
        ) as e:
            ScoreFacts.from_json(wrong)
        assert "pydantic" not in str(e.value)
    assert "got another n_init, lead_hours;" in str(e.value)
