"""The panel of a specialist's experts: how far they agree, by criterion, and each with the others."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.registry.domain import Judgement
from services.registry.rules.agreement import Distance, PanelAgreement, interval, measure_agreement, nominal, ordinal
from services.registry.rules.judging import RANKING

# Judgements of one unit by expert: of two drafts the better one (0 or 1, by their ids in order; 0.5 for none), or the mark of a draft.
Values = Mapping[str, float]


@dataclass(frozen=True)
class CriterionAgreement:
    """Agreement on `ranking`, or on the marks by a criterion.

    Of the whole panel, or of one expert with the others if `expert_id` is set.
    """

    criterion: str
    agreement: PanelAgreement
    expert_id: str = ""


def measure_panel(judgements: Iterable[Judgement], criteria: Sequence[str]) -> list[CriterionAgreement]:
    """The agreement on rankings, on these criteria and on others by which drafts were marked; of the panel and then of each expert.

    Expects the oldest judgement first: an expert's last one counts.

    Judgements without an expert are left out, and so are experts who judged nothing that another one did.
    """
    units = _collect(judgements)
    agreements = []
    for criterion in (RANKING, *criteria, *sorted(units.keys() - {RANKING, *criteria})):
        by_unit = [values for values in units[criterion].values() if len(values) > 1]
        distance: Distance = nominal if criterion == RANKING else ordinal
        agreements.append(CriterionAgreement(criterion, measure_agreement([[*v.values()] for v in by_unit], distance)))
        for expert in sorted({expert for values in by_unit for expert in values}):
            agreements.append(CriterionAgreement(criterion, _compare_with_others(expert, by_unit, criterion), expert))
    return agreements


def _collect(judgements: Iterable[Judgement]) -> Mapping[str, Mapping[tuple[str, ...], Values]]:
    units: dict[str, dict[tuple[str, ...], dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for judgement in judgements:
        if not judgement.expert_id:
            continue
        for criterion, unit, value in _list_values(judgement):
            units[criterion][unit][judgement.expert_id] = value
    return units


def _list_values(judgement: Judgement) -> Iterator[tuple[str, tuple[str, ...], float]]:
    for pair in judgement.comparisons:
        unit = tuple(sorted((pair.first, pair.second)))
        yield RANKING, unit, float(pair.first == unit[1]) if pair.is_decided else 0.5
    for mark in judgement.marks:
        yield mark.criterion, (mark.draft_id,), float(mark.mark)


def _compare_with_others(expert: str, units: Sequence[Values], criterion: str) -> PanelAgreement:
    """One expert and the panel without it, as two judges: its majority of two drafts, or its mean mark."""
    pairs = []
    for values in units:
        others = [value for other, value in values.items() if other != expert]
        mean = statistics.fmean(others) if others else 0.0
        # Without a majority, the others say nothing of two drafts.
        if expert not in values or not others or (criterion == RANKING and mean == 0.5):
            continue
        pairs.append([values[expert], float(mean > 0.5) if criterion == RANKING else mean])
    return measure_agreement(pairs, nominal if criterion == RANKING else interval)
