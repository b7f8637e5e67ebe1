"""The mean marks of a specialist's drafts."""

import random
import statistics
from datetime import UTC, datetime

from services.registry.domain import DraftMark, Judgement
from services.registry.rules.panel import PanelMean, report_panel

MAY, JUNE = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 30, 23, tzinfo=UTC)


def judgement(expert: str, time: datetime, *marks: tuple[str, str, int]) -> Judgement:
    given = tuple(DraftMark(*mark) for mark in marks)
    return Judgement(f"jdg_{expert}", "memos", ("x", "y"), given, "", time, expert_id=expert)


def test_means_are_by_criterion_month_and_adapter_and_each_draft_counts_once() -> None:
    judgements = [
        judgement("1", MAY, ("a", "tone", 5), ("b", "tone", 2)),
        judgement("2", MAY, ("a", "tone", 3), ("lost", "tone", 1)),
        judgement("1", JUNE, ("c", "tone", 4), ("c", "style", 1)),
    ]
    means = report_panel(judgements, {"a": "new", "b": "old", "c": ""}, ["tone"])
    assert means == [
        PanelMean("tone", "", "2026-06", 1, 1, 4.0),
        PanelMean("tone", "new", "2026-05", 1, 2, 4.0),
        PanelMean("tone", "old", "2026-05", 1, 1, 2.0),
        PanelMean("style", "", "2026-06", 1, 1, 1.0),
    ]


def test_the_last_mark_of_an_expert_for_a_draft_counts() -> None:
    judgements = [judgement("1", MAY, ("a", "tone", 1)), judgement("1", JUNE, ("a", "tone", 5))]
    assert report_panel(judgements, {"a": "new"}, []) == [PanelMean("tone", "new", "2026-06", 1, 1, 5.0)]


def test_the_interval_is_about_as_wide_as_the_normal_one() -> None:
    draw = random.Random(5)
    marks = [draw.randint(1, 5) for _ in range(200)]
    judgements = [judgement("1", MAY, *((f"drf_{index}", "tone", mark) for index, mark in enumerate(marks)))]
    (mean,) = report_panel(judgements, {f"drf_{index}": "new" for index in range(200)}, [])
    half = 1.96 * statistics.stdev(marks) / 200**0.5
    assert mean.low is not None and mean.high is not None
    assert abs(mean.low - (mean.mean - half)) < 0.05 and abs(mean.high - (mean.mean + half)) < 0.05
