"""Plans of evaluations, before a run: what its held-out rows can show, and what each condition of the gate then needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from services.registry.domain import Evaluation, Interval, Specialist
from services.registry.rules.gate import BASE, BEAT, INCUMBENT, find_beating_metric
from services.registry.rules.sample_size import (
    LOG_LIKELIHOOD,
    NORMAL,
    PAIR_MARGIN,
    PAIRED,
    SCORED,
    count_needed_rows,
    widen,
)

# A dataset with this share of the most held-out rows was cut: rows that overlap with train are left out after the cut.
NEAR_LIMIT = 0.9


@dataclass(frozen=True)
class EvaluationPlan:
    """The power of an evaluation: differences below `visible_difference` cannot be seen with `rows` rows.

    The difference is in the metric's unit, from the spread of an evaluation on `spread_rows` rows; without one, in standard deviations.
    With `needed_rows` rows, gains like those of that evaluation would be certain; 0 if that is not known. `conditions` are sentences.
    """

    metric: str
    rows: int
    held_out_rows: int
    visible_difference: float
    spread_rows: int
    sentence: str
    needed_rows: int = 0
    conditions: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Material:
    """The definition, the held-out rows of documents, the held-out pairs, and the newest evaluation."""

    specialist: Specialist
    documents: int
    pairs: int
    newest: Evaluation | None

    def held_out(self, metric: str) -> int:
        """Held-out rows that a metric could be measured on."""
        return self.pairs if metric in PAIRED or not self.documents else self.documents

    def rows(self, metric: str) -> int:
        """Held-out rows that a metric will be measured on."""
        policy = self.specialist.evaluation
        limits = [self.held_out(metric), policy.max_rows]
        if policy.max_answers and self._is_answered(metric):
            limits.append(policy.max_answers)
        return min(limits)

    def beating(self, metric: str) -> str:
        """The metric that must gain over the models of `beat` if this one decides."""
        return find_beating_metric(self.specialist.gate, metric) if self.gain(metric, INCUMBENT) else metric

    def total_rows(self) -> int:
        """All rows that will be evaluated."""
        return sum(min(count, self.specialist.evaluation.max_rows) for count in (self.documents, self.pairs))

    def gain(self, metric: str, model: str) -> Interval | None:
        """The newest evaluation's gain; None if it was not measured, or has no interval."""
        figures = self.newest.metrics.get(metric) if self.newest else None
        gain = figures.gains.get(model) if figures else None
        is_known = gain is not None and gain.rows and math.isfinite(gain.high - gain.low)
        return gain if is_known else None

    def how_to_get_more(self, metric: str) -> str:
        """The setting that limits the rows of a metric, or what gives more rows."""
        held_out, policy = self.held_out(metric), self.specialist.evaluation
        if self.rows(metric) < min(held_out, policy.max_rows):
            return "raise `evaluation.max_answers`"
        if policy.max_rows < held_out:
            return "raise `evaluation.max_rows`"
        if metric in PAIRED or not self.documents:
            return "have experts rank more drafts or raise `rows.held_out_percent`"
        if held_out >= NEAR_LIMIT * self.specialist.rows.max_held_out_rows:
            return "raise `rows.max_held_out_rows`"
        return "publish more documents; a higher `rows.held_out_percent` holds out more of the new ones"

    def _is_answered(self, metric: str) -> bool:
        name = metric.split(".", maxsplit=1)[0]
        kinds = {definition.name: definition.kind for definition in self.specialist.metrics}
        return kinds.get(name, name) not in SCORED


def plan_evaluation(specialist: Specialist, documents: int, pairs: int, newest: Evaluation | None) -> EvaluationPlan:
    """The plan for a run on datasets with these held-out rows of documents and held-out pairs."""
    material = _Material(specialist, documents, pairs, newest)
    metric = specialist.gate.primary.metric or (PAIR_MARGIN if pairs else LOG_LIKELIHOOD)
    rows, spread = material.rows(metric), material.gain(metric, INCUMBENT) or material.gain(metric, BASE)
    visible = math.inf
    if rows:
        visible = _half_width(spread, rows) if spread else NORMAL / math.sqrt(rows)
    return EvaluationPlan(
        metric,
        rows,
        material.held_out(metric),
        visible,
        spread.rows if spread else 0,
        _say_plan(material, metric, visible, spread),
        _count_needed(material, metric),
        tuple(_list_conditions(material, metric)),
    )


def _half_width(gain: Interval, rows: int) -> float:
    """Half the width of an interval on another number of rows."""
    return (gain.high - gain.low) / 2 * math.sqrt(gain.rows / rows)


def _say_plan(material: _Material, metric: str, visible: float, spread: Interval | None) -> str:
    rows, held_out = material.rows(metric), material.held_out(metric)
    if not rows:
        return f"no rows are held out for {metric}, so the gate will refuse: {material.how_to_get_more(metric)}"
    unit = (
        f"{visible:.3f} (by the spread of the last evaluation, on {spread.rows} rows)"
        if spread
        else f"{visible:.2f} standard deviations of the rows' gains (nothing was evaluated yet)"
    )
    return (
        f"with {rows} of {held_out} held-out rows, {metric} cannot show a difference below {unit}. "
        f"To see half of that, about {4 * rows} rows are needed: {material.how_to_get_more(metric)}"
    )


def _list_beaten(material: _Material, metric: str) -> dict[str, Interval]:
    """The newest evaluation's gains over the models of `beat`."""
    models, beating = material.specialist.gate.beat or BEAT, material.beating(metric)
    return {model: gain for model in models if (gain := material.gain(beating, model))}


def _list_served(material: _Material, metric: str) -> dict[str, Interval]:
    """The newest evaluation's gains over what serves. One of them must be certain, so their intervals are widened as at the gate."""
    names = metric, material.beating(metric)
    gains = {name: gain for name in names if (gain := material.gain(name, INCUMBENT))}
    return {name: widen(gain, len(gains)) for name, gain in gains.items()}


def _list_decided(material: _Material, metric: str) -> tuple[dict[str, Interval], float]:
    """The gains of the deciding metric whose rows are counted, and their limit: over `beat`, or else over what serves."""
    primary, served = material.specialist.gate.primary, _list_served(material, metric)
    if metric in served and material.beating(metric) != metric:
        return {"what serves": served[metric]}, primary.min_gain_over_incumbent
    return _list_beaten(material, metric), primary.min_gain


def _count_needed(material: _Material, metric: str) -> int:
    """The most rows that one of the last gains needs to be certain; 0 if that is not known."""
    gains, limit = _list_decided(material, metric)
    needed = [count_needed_rows(gain, limit) for gain in gains.values()]
    counts = [count for count in needed if count is not None]
    return max(counts) if counts and len(counts) == len(needed) else 0


def _list_conditions(material: _Material, metric: str) -> Iterator[str]:
    """A sentence for each condition: what a candidate must reach, and what the planned rows cannot decide."""
    gate, total = material.specialist.gate, material.total_rows()
    if total < gate.min_rows:
        more = material.how_to_get_more(metric)
        yield f"the gate requires {gate.min_rows} rows and {total} will be evaluated, so it will refuse: {more}"
    if material.rows(metric):
        yield from _say_primary(material, metric)
    for guard in gate.guards:
        rows = material.rows(guard.metric)
        gain = material.gain(guard.metric, INCUMBENT) or material.gain(guard.metric, BASE)
        half = _half_width(gain, rows) if gain and rows else 0.0
        if gain and half > guard.margin:
            yield _say_guard(material, guard.metric, guard.margin, gain)


def _say_primary(material: _Material, metric: str) -> Iterator[str]:
    primary, beating = material.specialist.gate.primary, material.beating(metric)
    limits = [
        f"{primary.min_gain + _half_width(gain, material.rows(beating)):.3f} over {model}"
        for model, gain in _list_beaten(material, metric).items()
    ]
    served = {
        name: f"{primary.min_gain_over_incumbent + _half_width(gain, material.rows(name)):.3f}"
        for name, gain in _list_served(material, metric).items()
    }
    if list(served) == [beating]:
        limits.append(f"{served.pop(beating)} over what serves")
    parts = [f"{beating} must gain more than about {', '.join(limits)}"] if limits else []
    if served:
        parts.append(
            " or ".join(f"{name} more than about {limit}" for name, limit in served.items()) + " over what serves"
        )
    if parts:
        yield f"to pass, {', and '.join(parts)}"
    decided, _ = _list_decided(material, metric)
    if decided:
        told_gains = ", ".join(f"{gain.value:+.3f} over {model}" for model, gain in decided.items())
        needed = _count_needed(material, metric)
        told = f"about {needed} rows would decide" if needed else "no number of rows would decide"
        more = f": {material.how_to_get_more(metric)}" if needed > material.rows(metric) else ""
        yield f"if the candidate gains as the last one did ({told_gains}), {told}{more}"


def _say_guard(material: _Material, metric: str, margin: float, gain: Interval) -> str:
    rows, half = material.rows(metric), _half_width(gain, material.rows(metric))
    seen = f"the guard {metric} allows a loss of {margin:g}, and with {rows} rows a difference below {half:.3f} cannot be seen"
    needed = count_needed_rows(Interval(0.0, -half, half, rows), -margin)
    if needed is None:
        return f"{seen}: only a candidate that is certainly not worse passes"
    return f"{seen}; for an equal candidate about {needed} rows would decide: {material.how_to_get_more(metric)}"
