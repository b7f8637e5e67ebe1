"""The agreement of a specialist's experts."""

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.registry.domain import Judgement
from services.registry.rules.panel import measure_panel
from tailor.words import DraftMark

NOW = datetime(2026, 5, 1, tzinfo=UTC)


SAME = (("a", 1), ("b", 5))
CRITERIA = ("accuracy", "style", "usefulness")


def judgement(expert: str, *ranking: str, marks: tuple[int, int, int] = (0, 0, 0)) -> Judgement:
    """A judgement with marks for its best draft; 0 means no mark."""
    given = tuple(DraftMark(ranking[0], name, mark) for name, mark in zip(CRITERIA, marks, strict=True) if mark)
    return Judgement("jdg", "memos", ranking, given, "", NOW, expert_id=expert)


def find(judgements: list[Judgement], criterion: str = "ranking") -> dict[str, tuple[int, float | None]]:
    """Units and alpha by expert; the panel's expert is empty."""
    return {
        item.expert_id: (item.agreement.units, item.agreement.alpha)
        for item in measure_panel(judgements, CRITERIA)
        if item.criterion == criterion
    }


def test_noisy_expert_is_found() -> None:
    draw = random.Random(3)
    judgements = []
    for number in range(60):
        better, worse = (f"drf_{number}_{side}" for side in draw.sample("ab", 2))
        judgements += [judgement(expert, better, worse) for expert in ("exp_1", "exp_2")]
        judgements.append(judgement("exp_3", *draw.sample([better, worse], 2)))
    found = find(judgements)
    # Where the noisy expert contradicts the second one, the first has no majority to be compared with.
    assert found["exp_1"][0] == found["exp_2"][0] < found["exp_3"][0] == 60
    assert found["exp_1"][1] == found["exp_2"][1] == 1.0
    noisy, panel = found["exp_3"][1], found[""][1]
    assert noisy is not None and panel is not None
    assert abs(noisy) < 0.35
    assert noisy < panel < 0.9


def test_ranking_of_three_drafts_is_three_pairs_and_order_within_a_pair_does_not_matter() -> None:
    found = find([judgement("exp_1", "c", "a", "b"), judgement("exp_2", "c", "b", "a")])
    assert found[""][0] == 3
    assert found["exp_1"][0] == found["exp_2"][0] == 3


def test_marks_are_compared_by_draft_and_criterion() -> None:
    judgements = [
        judgement("exp_1", "a", marks=(5, 2, 0)),
        judgement("exp_2", "a", marks=(5, 3, 4)),
        judgement("exp_1", "b", marks=(1, 4, 0)),
        judgement("exp_2", "b", marks=(1, 3, 0)),
    ]
    assert find(judgements, "accuracy")[""] == (2, 1.0)
    assert find(judgements, "style")[""][0] == 2
    assert find(judgements, "usefulness") == {"": (0, None)}


def test_tie_is_a_judgement_of_its_own() -> None:
    tie = Judgement("jdg", "memos", (), (), "", NOW, expert_id="exp_2", equal=("b", "a"))
    found = find([judgement("exp_1", "a", "b"), tie, judgement("exp_1", "c", "d"), judgement("exp_2", "c", "d")])
    assert found[""][0] == 2
    assert found[""][1] is not None and found[""][1] < 1.0


def test_equally_good_drafts_of_a_ranking_are_no_preference() -> None:
    first = judgement("exp_1", "c", "a", "b")
    found = find([replace(first, places=(1, 2, 2)), replace(first, expert_id="exp_2", places=(1, 2, 2))])
    assert found[""] == (3, 1.0)
    disagreed = find([replace(first, places=(1, 2, 2)), replace(first, expert_id="exp_2")])
    assert disagreed[""][0] == 3 and disagreed[""][1] is not None and disagreed[""][1] < 1.0


def test_criteria_of_earlier_judgements_follow_the_present_ones() -> None:
    marks = [judgement(expert, draft, marks=(mark, 0, 0)) for expert in ("exp_1", "exp_2") for draft, mark in SAME]
    found = measure_panel(marks, ["tone"])
    assert [item.criterion for item in found if not item.expert_id] == ["ranking", "tone", "accuracy"]


def test_last_judgement_of_an_expert_counts() -> None:
    others = [judgement("exp_2", "b", "a"), judgement("exp_1", "c", "d"), judgement("exp_2", "c", "d")]
    changed = [judgement("exp_1", "a", "b"), judgement("exp_1", "b", "a"), *others]
    units, alpha = find(changed)[""]
    assert units == 2
    assert alpha == pytest.approx(1.0)


def test_judgements_without_an_expert_and_drafts_of_one_expert_do_not_count() -> None:
    judgements = [judgement("", "a", "b"), judgement("exp_1", "a", "b"), judgement("exp_2", "c", "d")]
    assert find(judgements) == {"": (0, None)}
