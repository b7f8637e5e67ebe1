"""Rules that a judgement must fulfil, and what its marks are for."""

from collections.abc import Sequence
from itertools import pairwise

from services.registry.domain import Draft, DraftMark, GivenJudgement
from tailor.errors import InvalidArgument, Reason
from tailor.values import JudgingCriterion

MAX_RANKED = 8
MAX_COMMENT = 4000
# Of one judgement: that many drafts by five criteria.
MAX_MARKS = 40


def check_judgement(given: GivenJudgement) -> None:
    """Raises InvalidArgument with a violation per invalid field."""
    violations: dict[str, str] = {}
    if not 1 <= len(given.ranking) <= MAX_RANKED or len(set(given.ranking)) != len(given.ranking):
        violations["ranking"] = f"must have 1 to {MAX_RANKED} different draft ids, the best first"
    elif not given.is_ranked and len(given.ranking) < 2:
        violations["outcome"] = "needs at least two drafts"
    if given.places and not _are_places(given):
        violations["places"] = (
            "must be left out, or have a number for each draft of a ranking: 1 for the first, then the same number or one more; "
            "not all the same"
        )
    if len(given.comment) > MAX_COMMENT:
        violations["comment"] = f"must have at most {MAX_COMMENT} characters"
    if problem := _find_mark_problem(given):
        violations["marks"] = problem
    if violations:
        raise _invalid(violations)


def _are_places(given: GivenJudgement) -> bool:
    places = given.places
    steps = {after - before for before, after in pairwise(places)}
    return given.is_ranked and len(places) == len(given.ranking) and places[0] == 1 and 1 in steps and steps <= {0, 1}


def _find_mark_problem(given: GivenJudgement) -> str:
    """What is wrong with the marks as far as it shows without their drafts; empty if nothing is."""
    if any(not 1 <= mark.mark <= 5 for mark in given.marks):
        return "must be 1 to 5"
    if len(given.marks) > MAX_MARKS:
        return f"must be at most {MAX_MARKS}"
    if given.is_ranked and len(given.ranking) == 1 and not given.marks:
        return "must be given for a single draft"
    if not given.is_ranked and any(not mark.draft_id for mark in given.marks):
        return "must name their draft if no draft is better; `rubric` must be left out"
    return ""


def resolve_marks(
    given: GivenJudgement, drafts: Sequence[Draft], criteria: Sequence[JudgingCriterion]
) -> tuple[DraftMark, ...]:
    """The marks with their drafts. Expects the drafts of the ranking.

    Raises InvalidArgument for marks of other drafts, of drafts that an expert edited, and by unknown criteria.
    """
    written = [draft.draft_id for draft in drafts if not draft.edit_of]
    names = [criterion.name for criterion in criteria]
    marks: dict[tuple[str, str], DraftMark] = {}
    for mark in given.marks:
        draft_id = mark.draft_id or (written[0] if written else "")
        if draft_id not in written:
            raise _invalid({"marks": "must be for drafts of the ranking that a model wrote"})
        if mark.criterion not in names:
            raise _invalid({"marks": f"must be by the specialist's criteria: {', '.join(names)}"})
        if (draft_id, mark.criterion) in marks:
            raise _invalid({"marks": "must be one for each draft and criterion"})
        marks[draft_id, mark.criterion] = DraftMark(draft_id, mark.criterion, mark.mark)
    return tuple(marks.values())


def find_common_specialist(drafts: Sequence[Draft]) -> str:
    """The one specialist of the drafts, ignoring drafts of the base. Raises InvalidArgument unless there is exactly one."""
    names = {draft.specialist for draft in drafts if draft.specialist}
    if len(names) != 1:
        raise InvalidArgument(
            Reason.MIXED_DRAFTS, "Judge drafts of one specialist; drafts of the base may be among them."
        )
    return names.pop()


def _invalid(violations: dict[str, str]) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_JUDGEMENT, "The judgement is invalid.", field_violations=violations)
