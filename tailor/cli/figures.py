"""Shows an evaluation's figures, always with their intervals, and the gate's verdict."""

from collections.abc import Callable, Iterable, Iterator

from rich.table import Table

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.output import short
from tailor.cli.tables import item_table
from tailor.columns import columns, read, word
from tailor.list_columns import describe_estimate as describe
from tailor.list_columns import describe_price

SUITE_LIMITS = {"max_forgetting": "forgetting", "max_refusal_drop": "drop of refusals"}


def decision_of(decision: "registry_pb2.Decision.ValueType") -> str:
    """The gate's decision as a word; `not evaluated` before the first evaluation."""
    return word(registry_pb2.Decision.DESCRIPTOR, decision).replace("unspecified", "not evaluated")


def state_of(state: "registry_pb2.AdapterState.ValueType") -> str:
    """The state of an adapter as a word, the same as on every page."""
    return word(registry_pb2.AdapterState.DESCRIPTOR, state)


def describe_verdict(name: str, decision: "registry_pb2.Decision.ValueType", reasons: Iterable[str]) -> Iterator[str]:
    """A line for each reason of a verdict."""
    return (f"{name} {decision_of(decision)}: {reason}" for reason in reasons)


def describe_adapter(item: registry_pb2.CatalogueAdapter) -> Iterator[str]:
    """The reasons of an adapter's verdict, an operator's decision about it, and what can be done next."""
    name, state = short(item.adapter.digest), state_of(item.state)
    # A verdict on a later evaluation does not change what serves, so the state comes first.
    shown = name if state == decision_of(item.decision) else f"{name} {state}; newest verdict"
    yield from describe_verdict(shown, item.decision, item.reasons)
    if item.HasField("operator_decision"):
        yield f"{name} {describe_decision(item.operator_decision)}"
    if item.advice:
        yield f"{name} next: {item.advice}"


def describe_decision(decision: registry_pb2.OperatorDecision) -> str:
    """Who decided what, when and why."""
    verdict = f" (verdict: {decision_of(decision.verdict)})" if decision.verdict else ""
    who = decision.key_id or "the console's operator"
    when = decision.create_time.ToDatetime().isoformat(sep=" ", timespec="minutes")
    return f"{read(decision, 'kind')}{verdict} by {who} on {when}: {decision.reason or 'no reason given'}"


def figures_table(evaluation: models_pb2.AdapterEvaluated) -> Table:
    """A row per metric and suite's measure: the candidate's gain over each other model, each model's value, and the number of rows."""
    models = _models(evaluation)
    pairs = f", {evaluation.pairs} of them ranked pairs" if evaluation.pairs else ""
    title = f"evaluation on {evaluation.rows} held-out rows{pairs}, 95 % intervals"
    shown = columns(
        None,
        ("metric", describe_metric),
        ("gain over", lambda item: "\n".join(_list_gains(item, models))),
        *(estimates(model, model) for model in models),
        ("rows", lambda item: item.models["candidate"].rows if "candidate" in item.models else ""),
    )
    return item_table(title, shown, (*evaluation.metrics, *evaluation.suites))


def describe_metric(item: models_pb2.MetricFigures) -> str:
    """A metric's name, and whether lower is better."""
    return item.metric + (" (lower is better)" if item.lower_is_better else "")


def estimates(name: str, model: str, absent: str = "") -> tuple[str, Callable[[models_pb2.MetricFigures], str]]:
    """The column of a model's values of metrics."""
    return name, lambda item: describe(item.models[model]) if model in item.models else absent


def _list_gains(item: models_pb2.MetricFigures, models: Iterable[str]) -> Iterator[str]:
    return (f"{model} {describe(item.gains[model], '+')}" for model in models if model in item.gains)


# What the answers of a model took, and the price of 1,000.
COSTS = columns(
    models_pb2.ModelCost,
    "model, answers, median=median_seconds|{:.2f} s, 95 % within=p95_seconds|{:.2f} s, prompt tokens|{:.0f}",
    "answer tokens|{:.0f}",
    ("per 1,000", describe_price),
)


def describe_definition(evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    """Rows that were left out, answers that were cut, the metrics and the gate that were measured, and the goals, a line each."""
    yield from _describe_rows(evaluation)
    yield from _describe_definitions(evaluation)
    yield from map(_describe_goal, evaluation.goals)


def _describe_rows(evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    if evaluation.rows_too_long:
        yield f"left out: {evaluation.rows_too_long} held-out rows that do not fit the context that inference serves"
    if cut := list_cut_answers(evaluation):
        yield f"cut at the maximum of tokens: {cut}"


def list_cut_answers(evaluation: models_pb2.AdapterEvaluated) -> str:
    """How many answers of each model were cut at the maximum of tokens; empty if none were."""
    cut = (cost for cost in evaluation.costs if cost.cut_answers)
    return ", ".join(f"{cost.cut_answers} of {cost.answers} answers of {cost.model}" for cost in cut)


def _describe_definitions(evaluation: models_pb2.AdapterEvaluated) -> Iterator[str]:
    if not evaluation.definitions:
        return
    *earlier, current = evaluation.definitions
    yield f"metrics and gate: revision {current.revision}, frozen on {current.freeze_time.ToDatetime():%Y-%m-%d}"
    if earlier:
        revisions = ", ".join(f"{item.revision} of {item.freeze_time.ToDatetime():%Y-%m-%d}" for item in earlier)
        yield f"changed since: figures by revision {revisions} cannot be compared with these"


def _describe_goal(goal: models_pb2.Goal) -> str:
    wanted = f"gain over base of {goal.goal:g}" if goal.is_gain else f"{goal.goal:g}"
    return (
        f"goal: {goal.metric} {wanted}; {read(goal, 'state')}: {describe(goal.estimate, '+' if goal.is_gain else '')}"
    )


def _models(evaluation: models_pb2.AdapterEvaluated) -> list[str]:
    """The models of all metrics: the base first, the adapter that served and the candidate last."""
    names = {model for item in evaluation.metrics for model in item.models}
    return sorted(names, key=lambda name: (name != "base", name == "candidate", name == "incumbent", name))


def describe_gate(gate: models_pb2.Gate) -> Iterator[str]:
    """The gate's conditions, a line each."""
    primary = gate.primary
    name = primary.metric or "log_likelihood"
    served = "" if primary.metric else "; after new rankings, a gain of pair_margin over what serves suffices, too"
    beat = " and ".join(gate.beat or ("base", "few_shot"))
    yield (
        f"gate: {name} must certainly gain more than {primary.min_gain:g} over {beat}, "
        f"and more than {primary.min_gain_over_incumbent:g} over what serves{served}"
    )
    for guard in gate.guards:
        yield f"guard: {guard.metric} must certainly not lose more than {guard.margin:g}"
    limits = [f"parity {gate.max_parity or 0.1:g} nats per token", f"memorised {gate.max_memorised}"]
    limits += [f"{name} {getattr(gate, field):g}" for field, name in SUITE_LIMITS.items() if gate.HasField(field)]  # type: ignore[arg-type]
    yield f"limits: at least {gate.min_rows} rows; at most {', '.join(limits)}"
