"""What `make bench-loop` computes from what it saw: agreement in another way, the noisy expert, the bounds, and the page's section."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.loop_experts import ScriptedDecision
from services.registry.rules.gate import PREFERENCE_MARGIN
from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import panel_pb2

RANKING = "ranking"
PAIRS, MARGIN, DOCUMENTS = "win_rate", "pair_margin", "log_likelihood"
BASE, INCUMBENT, CANDIDATE = "base", "incumbent", "candidate"
# Names of the four phases.
DOCUMENTS_1, RANKINGS_1, DOCUMENTS_2, RANKINGS_2 = PHASES = ("documents 1", "rankings 1", "documents 2", "rankings 2")
ROUNDS = 2
SAME = 1e-9


@dataclass(frozen=True)
class LoopFigure:
    """A value with its 95 % interval, and the number of rows or units."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class PanelFigures:
    """Agreement on the better draft: of the panel as Tailor and as nltk compute it, and of each expert with the others."""

    units: int
    alpha: float
    low: float
    high: float
    independent_alpha: float
    experts: Mapping[str, LoopFigure]
    noisy_expert: str
    judgements: int


def measure_alpha(decisions: Sequence[ScriptedDecision]) -> float:
    """Krippendorff's alpha of which of two drafts is better, by nltk. NaN if no two experts judged the same drafts."""
    from nltk.metrics.agreement import AnnotationTask

    votes = {(item.expert, item.drafts): item.better for item in decisions}
    units = [drafts for _, drafts in votes]
    # The label is the place of the better draft, as nominal data: two pairs have no draft in common.
    shared = [
        (expert, "+".join(drafts), str(drafts.index(better)))
        for (expert, drafts), better in votes.items()
        if units.count(drafts) > 1
    ]
    return float(AnnotationTask(shared).alpha()) if shared else math.nan


def measure_panel(
    response: panel_pb2.GetAgreementResponse, names: Mapping[str, str], decisions: Sequence[ScriptedDecision]
) -> PanelFigures:
    """The figures of `GetAgreement`, with the experts' names by their ids, and alpha computed independently from the decisions."""
    agreement = {item.expert_id: item for item in response.agreement if item.criterion == RANKING}
    panel = agreement.pop("")
    experts = {names[key]: _agreement(item) for key, item in agreement.items()}
    whole = _agreement(panel)
    return PanelFigures(
        whole.rows,
        whole.value,
        whole.low,
        whole.high,
        measure_alpha(decisions),
        experts,
        find_noisy_expert(experts),
        response.judgements,
    )


def find_noisy_expert(experts: Mapping[str, LoopFigure]) -> str:
    """The expert who certainly agrees less than every other one: whose whole interval is below all others. Empty if there is none."""
    worst = min(experts, key=lambda name: experts[name].value, default="")
    others = [figure for name, figure in experts.items() if name != worst]
    return worst if others and all(experts[worst].high < other.low for other in others) else ""


def find_figure(evaluation: models_pb2.AdapterEvaluated, metric: str, model: str) -> LoopFigure | None:
    """A model's value of a metric; None if it was not measured."""
    return _find(evaluation, metric, model, "models")


def find_gain(evaluation: models_pb2.AdapterEvaluated, metric: str, model: str) -> LoopFigure | None:
    """The candidate's gain over a model; None if it was not measured."""
    return _find(evaluation, metric, model, "gains")


def find_guarded_gain(evaluation: models_pb2.AdapterEvaluated) -> LoopFigure | None:
    """The candidate's gain on the documents as the gate guards it: over the adapter that served, or else over the base."""
    has_other = evaluation.incumbent_digest not in ("", evaluation.adapter_digest)
    return find_gain(evaluation, DOCUMENTS, INCUMBENT if has_other else BASE)


def list_broken_bounds(figures: Mapping[str, Any], noisy: str) -> Iterator[str]:
    """A sentence for each bound that does not hold."""
    if figures["rounds"] != ROUNDS:
        yield f"rounds is {figures['rounds']}, not {ROUNDS}"
    phases = figures["phases"]
    before, after = (phases[name]["pair_accuracy"] for name in (RANKINGS_1, DOCUMENTS_2))
    if before is None or after is None:
        yield "pair_accuracy was not measured"
    elif after["value"] < before["value"]:
        yield f"pair_accuracy is {after['value']:.3f} after the second round of documents, and was {before['value']:.3f}"
    for name in (RANKINGS_1, RANKINGS_2):
        gain = phases[name]["documents_gain"]
        if gain is None or not gain["low"] >= -PREFERENCE_MARGIN:
            yield f"documents_metric gains {_show(gain)} in {name}, which is not certainly above -{PREFERENCE_MARGIN}"
    for name, panel in figures["panel"].items():
        if not abs(panel["alpha"] - panel["independent_alpha"]) < SAME:
            yield f"alpha is {panel['alpha']} after {name}, and {panel['independent_alpha']} by nltk"
    if figures["noisy_expert_found"] is not True:
        last = figures["panel"][RANKINGS_2]["noisy_expert"]
        yield f"noisy_expert_found: {last or 'nobody'} certainly agrees least, not {noisy}"


def measure_phase(evaluation: models_pb2.AdapterEvaluated) -> dict[str, Any]:
    """Figures of an evaluation on the pairs and the documents, and of the rows that it left out."""
    figures = {
        "pair_accuracy": find_figure(evaluation, PAIRS, CANDIDATE),
        "pair_accuracy_base": find_figure(evaluation, PAIRS, BASE),
        "pair_accuracy_gain": find_gain(evaluation, PAIRS, INCUMBENT),
        "pair_margin": find_figure(evaluation, MARGIN, CANDIDATE),
        "pair_margin_gain": find_gain(evaluation, MARGIN, INCUMBENT),
        "documents_metric": find_figure(evaluation, DOCUMENTS, CANDIDATE),
        "documents_gain": find_guarded_gain(evaluation),
    }
    return {
        **{name: asdict(figure) if figure else None for name, figure in figures.items()},
        "rows": evaluation.rows,
        "pairs": evaluation.pairs,
        "held_out_rows": evaluation.held_out_rows,
        "rows_too_long": evaluation.rows_too_long,
        "not_measured": dict(evaluation.not_measured),
    }


def describe_phase(phase: Mapping[str, Any]) -> str:
    """A phase's figures that the bounds are about, in a line."""
    rows = {kind: dataset["train_rows"] for kind, dataset in phase["datasets"].items()}
    return (
        f"pair_accuracy {_show(phase['pair_accuracy'])}, documents gain {_show(phase['documents_gain'])}, rows to train on: "
        + ", ".join(f"{count} {kind}" for kind, count in rows.items())
    )


def render(figures: Mapping[str, Any]) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        "| phase | verdict | pairs: right, of | margin's gain over what served | documents: nats per token | gain as guarded | seconds |",
        "|---|---|---|---|---|---|---:|",
    ]
    for name in PHASES:
        phase = figures["phases"][name]
        lines.append(
            f"| {name} | {phase['verdict']} | {_show(phase['pair_accuracy'])} | {_show(phase['pair_margin_gain'])} "
            f"| {_show(phase['documents_metric'])} | {_show(phase['documents_gain'])} | {phase['seconds']:.0f} |"
        )
    lines += ["", "| | after rankings 1 | after rankings 2 |", "|---|---|---|"]
    first, second = (figures["panel"][name] for name in (RANKINGS_1, RANKINGS_2))
    lines += [f"| {label} | {_cell(first, label)} | {_cell(second, label)} |" for label in ("alpha", "alpha by nltk")]
    lines += [
        f"| {name} and the others | {_expert(first, name)} | {_expert(second, name)} |" for name in first["experts"]
    ]
    lines += [f"| certainly agrees least | {first['noisy_expert'] or '-'} | {second['noisy_expert'] or '-'} |"]
    ratio = figures["rollout_ratio"]
    return "\n".join(
        [
            *lines,
            "",
            f"`rounds` {figures['rounds']}; `noisy_expert_found` {str(figures['noisy_expert_found']).lower()}; "
            f"`rollout_ratio` {ratio if isinstance(ratio, str) else f'{ratio:.1f}'}. {figures['base']}, {figures['prompts']} prompts in each round of "
            f"rankings, {figures['seconds']:.0f} s on {figures['cores']} cores.",
            "",
            f"Left out: {_describe(figures['skipped'])}.",
            "",
            f"Bounds that did not hold: {'; '.join(figures['broken']) or 'none'}.",
        ]
    )


def _agreement(item: panel_pb2.CriterionAgreement) -> LoopFigure:
    """Alpha with its interval; NaN for what is absent."""
    alpha, low, high = (getattr(item, name) if item.HasField(name) else math.nan for name in ("alpha", "low", "high"))
    return LoopFigure(alpha, low, high, item.units)


def _find(evaluation: models_pb2.AdapterEvaluated, metric: str, model: str, kind: str) -> LoopFigure | None:
    for item in evaluation.metrics:
        known = getattr(item, kind)
        if item.metric == metric and model in known:
            return LoopFigure(known[model].value, known[model].low, known[model].high, known[model].rows)
    return None


def _show(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "-"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f}, {figure['rows']})"


def _cell(panel: Mapping[str, Any], label: str) -> str:
    if label == "alpha":
        return f"{panel['alpha']:.3f} ({panel['low']:.3f} to {panel['high']:.3f}, {panel['units']} pairs)"
    return f"{panel['independent_alpha']:.3f}"


def _expert(panel: Mapping[str, Any], name: str) -> str:
    return _show(panel["experts"].get(name))


def _describe(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in skipped.items()) or "nothing"
