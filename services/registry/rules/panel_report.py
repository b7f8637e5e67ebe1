"""The mean marks of a specialist's drafts, by criterion, adapter and month."""

import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

from services.registry.domain import DraftMark, Judgement
from services.registry.rules.agreement import MIN_UNITS, RESAMPLES, percentile

MarkKey = tuple[str, str]  # draft and criterion


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
    return PanelMean(
        criterion, adapter, month, len(means), experts, mean.mean, percentile(drawn, 0.025), percentile(drawn, 0.975)
    )
