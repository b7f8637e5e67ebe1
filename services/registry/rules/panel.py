"""The panel of a specialist's experts: how far they agree, and the mean marks that they give, by criterion, adapter and month."""

import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC

from services.registry.domain import DraftMark, Judgement
from services.registry.rules.agreement import (
    MIN_UNITS,
    RESAMPLES,
    Distance,
    PanelAgreement,
    interval,
    measure_agreement,
    nominal,
    ordinal,
    percentile,
)
from services.registry.rules.expert_queue import RANKING

MarkKey = tuple[str, str]  # draft and criterion
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


@dataclass(frozen=True)
class PanelMean:
    """The mean mark of the drafts of an adapter that were judged in a month such as `2026-11`. An empty adapter is the base.

    `low` and `high` are the 95 % interval, from a bootstrap over drafts (Efron and Tibshirani 1993); None with few drafts.
    """

    criterion: str
    adapter_digest: str
    month: str
    drafts: int
    experts: int
    mean: float
    low: float | None = None
    high: float | None = None


def report_panel(
    judgements: Iterable[Judgement], adapters: Mapping[str, str], criteria: Sequence[str]
) -> list[PanelMean]:
    """The means: these criteria first, then others; of each the newest month first. `adapters` has the adapter of each draft that counts.

    A draft's mark is the mean of its experts' last marks. Expects the oldest judgement first. A judgement without an expert counts as
    another expert's. Deterministic.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for expert, month, mark in _list_last(judgements):
        if mark.draft_id in adapters:
            group = groups[mark.criterion, month, adapters[mark.draft_id]]
            group[mark.draft_id][expert] = float(mark.mark)
    order = {name: place for place, name in enumerate(criteria)}
    ordered = sorted(groups, key=lambda group: group[2])
    ordered.sort(key=lambda group: group[1], reverse=True)
    ordered.sort(key=lambda group: (order.get(group[0], len(order)), group[0]))
    return [_describe(group, groups[group]) for group in ordered]


def _list_last(judgements: Iterable[Judgement]) -> Iterable[tuple[str, str, DraftMark]]:
    """Expert, month and mark, of which only an expert's last one for a draft and a criterion counts."""
    last: dict[tuple[str, MarkKey], tuple[str, str, DraftMark]] = {}
    for judgement in judgements:
        expert = judgement.expert_id or judgement.judgement_id
        month = f"{judgement.create_time.astimezone(UTC):%Y-%m}"
        for mark in judgement.marks:
            last[expert, (mark.draft_id, mark.criterion)] = (expert, month, mark)
    return last.values()


def _describe(group: tuple[str, str, str], marks: Mapping[str, Mapping[str, float]]) -> PanelMean:
    criterion, month, adapter = group
    means = [statistics.fmean(by_expert.values()) for _, by_expert in sorted(marks.items())]
    experts = len({expert for by_expert in marks.values() for expert in by_expert})
    mean = PanelMean(criterion, adapter, month, len(means), experts, statistics.fmean(means))
    if len(means) < MIN_UNITS:
        return mean
    draw = random.Random(7)  # noqa: S311 - a bootstrap, not a secret
    drawn = sorted(statistics.fmean(draw.choices(means, k=len(means))) for _ in range(RESAMPLES))
    return replace(mean, low=percentile(drawn, 0.025), high=percentile(drawn, 0.975))
