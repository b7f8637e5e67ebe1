"""What the pages derive from the services' messages. Pure functions; times are UTC."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import Message

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import people_pb2, registry_pb2
from tailor.api.training.v1 import training_pb2
from tailor.codec import decode
from tailor.pipelines import PipelineStage, describe_pipeline
from tailor.values import EvaluationPolicy, RowPolicy, SamplingDefaults
from tailor.wire import (
    enum_name,
    to_datetime,
    to_pipeline,
)

# Anonymization is the only service that rejects with this reason; submissions with any other are rejected by ingestion.
REJECTED_BY_ANONYMIZATION = "UNREADABLE"
# What the contract names for a gate that sets none.
MAX_PARITY = 0.1
BEAT = ("base", "few_shot")
ENDED = {training_pb2.RUN_STATE_SUCCEEDED, training_pb2.RUN_STATE_FAILED, training_pb2.RUN_STATE_CANCELLED}


@dataclass(frozen=True)
class Figure:
    """One figure of a plan: forecast, used, and the relative error (0.1: the forecast was 10 % too high).

    None means that the value is not known (yet). The unit is `count`, `bytes`, `seconds` or a currency."""

    name: str
    unit: str
    forecast: float | None
    used: float | None
    error: float | None = None


def code(message: Message, field: str) -> str:
    """The value of an enum field without its prefix: `REJECTION_REASON_CORRUPT` is `CORRUPT`."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert enum is not None  # noqa: S101 - a template names an enum field
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    value = enum.values_by_number.get(getattr(message, field))
    return value.name.removeprefix(prefix) if value else "UNKNOWN"


def word(message: Message, field: str) -> str:
    """The value of an enum field as a word: `RUN_STATE_QUEUED` is `queued`."""
    return code(message, field).lower().replace("_", " ")


def count_rejected(flow: registry_pb2.GetFlowResponse) -> int:
    """Rejected submissions."""
    return sum(flow.rejected.values())


def count_submitted(flow: registry_pb2.GetFlowResponse) -> int:
    """Submissions that are accounted for. Counts can arrive out of order, so it is never less than what left the flow."""
    at_ingestion = count_rejected(flow) - flow.rejected.get(REJECTED_BY_ANONYMIZATION, 0)
    return max(flow.ingested + at_ingestion, flow.anonymized + count_rejected(flow))


def count_under_way(flow: registry_pb2.GetFlowResponse) -> int:
    """Submissions that are neither anonymised nor rejected yet."""
    return count_submitted(flow) - flow.anonymized - count_rejected(flow)


def decision(adapter: registry_pb2.CatalogueAdapter | registry_pb2.TraceResponse) -> str:
    """The gate's decision as a word; `waiting` before the evaluation."""
    return word(adapter, "decision") if adapter.decision else "waiting"


def word_of_verdict(item: registry_pb2.OperatorDecision) -> str:
    """The gate's verdict at the time of an operator's decision."""
    return enum_name(registry_pb2.Decision, item.verdict, "DECISION_").lower()


def list_models(evaluation: models_pb2.AdapterEvaluated) -> tuple[str, ...]:
    """The models of an evaluation: the base first, then others by name, the adapter that served, the candidate last."""
    names = {model for item in evaluation.metrics for model in item.models}
    return tuple(sorted(names, key=lambda name: (name != "base", name == "candidate", name == "incumbent", name)))


def list_gate(gate: models_pb2.Gate) -> tuple[tuple[str, str], ...]:
    """Name and limit of every condition of a gate."""
    primary = gate.primary
    served = "" if primary.metric else "; after new rankings, that of pair_margin suffices, too"
    limits = (
        ("decides", primary.metric or "log_likelihood"),
        ("gain", f"certainly above {primary.min_gain:g} over {' and '.join(gate.beat or BEAT)}"),
        ("gain", f"certainly above {primary.min_gain_over_incumbent:g} over what serves{served}"),
        *((f"{guard.metric} loses", f"certainly at most {guard.margin:g}") for guard in gate.guards),
        ("rows", f"at least {gate.min_rows:,}"),
        ("parity", f"at most {gate.max_parity or MAX_PARITY:g} nats per token"),
        ("forgetting", f"at most {gate.max_forgetting:g}" if gate.HasField("max_forgetting") else ""),
        ("drop of refusals", f"at most {gate.max_refusal_drop:g}" if gate.HasField("max_refusal_drop") else ""),
        ("memorised", f"at most {gate.max_memorised}"),
    )
    return tuple((name, limit) for name, limit in limits if limit)


def pipeline(message: models_pb2.SpecialistChanged | models_pb2.DatasetBuilt) -> str:
    """The stages of a specialist's pipeline, or of the pipeline for which a dataset was built, with their recipes."""
    if isinstance(message, models_pb2.SpecialistChanged):
        return describe_pipeline(to_pipeline(message))
    return describe_pipeline([PipelineStage(stage.stage, stage.recipe) for stage in message.pipeline])


def key_state(key: registry_pb2.Key, now: datetime) -> str:
    """`active`, `revoked` or `expired`."""
    if key.revoked:
        return "revoked"
    return "expired" if key.HasField("expire_time") and to_datetime(key.expire_time) <= now else "active"


def person_state(person: people_pb2.Person, now: datetime) -> str:
    """`invited`, `expired` (the invitation), `active` or `removed`."""
    if person.HasField("invitation_expire_time"):
        return "expired" if to_datetime(person.invitation_expire_time) <= now else "invited"
    return "removed" if person.state == people_pb2.PERSON_STATE_REMOVED else "active"


def list_filters(filters: models_pb2.Filters) -> tuple[tuple[str, str], ...]:
    """Name and limit of every filter that is set."""
    limits = (
        ("language", ", ".join(filters.languages)),
        ("characters", f"at least {filters.min_chars:,}" if filters.min_chars else ""),
        ("characters", f"at most {filters.max_chars:,}" if filters.max_chars else ""),
        ("boilerplate", f"in {filters.boilerplate_documents:,} documents" if filters.boilerplate_documents else ""),
        ("per source", f"{filters.max_source_documents:,} documents" if filters.max_source_documents else ""),
        ("per source", f"{filters.max_source_percent} % of the rows" if filters.max_source_percent else ""),
        ("per judgement", f"{filters.max_pairs_per_judgement:,} pairs" if filters.max_pairs_per_judgement else ""),
        ("golden documents", "also of publishers who teach" if filters.same_publisher_tests else ""),
    )
    return tuple((name, limit) for name, limit in limits if limit)


def list_row_limits(message: models_pb2.RowPolicy) -> tuple[tuple[str, str], ...]:
    """Name and value of every limit on rows that is set, and of what is held out."""
    policy = decode(RowPolicy, message)
    limits = (
        ("per row", f"at most {policy.max_row_tokens:,} tokens" if policy.max_row_tokens else ""),
        ("per document", f"at most {policy.max_rows_per_document:,} rows" if policy.max_rows_per_document else ""),
        (
            "answers per document",
            f"at most {policy.max_answer_percent:,} % of its characters" if policy.max_answer_percent else "",
        ),
        ("train", f"at most {policy.max_train_tokens:,} tokens" if policy.max_train_tokens else ""),
        ("per answer", f"at least {policy.min_answer_tokens:,} tokens"),
        ("held out", f"{policy.held_out_percent} %, at most {policy.max_held_out_rows:,} rows"),
        ("tasks", ", ".join(policy.tasks)),
        ("own tasks", ", ".join(task.name for task in policy.own_tasks)),
        *_list_row_limits(policy),
        (
            "critiques",
            f"up to {policy.critique_tokens_per_month:,} tokens per month" if policy.critique_tokens_per_month else "",
        ),
        ("replay", f"{policy.replay_percent} % from {', '.join(policy.replay)}" if policy.replay else ""),
    )
    return tuple((name, limit) for name, limit in limits if limit)


def list_sampling(message: models_pb2.SamplingDefaults) -> tuple[tuple[str, str], ...]:
    """Name and value of how a specialist answers by default."""
    sampling = decode(SamplingDefaults, message)
    return (
        ("temperature", f"{sampling.temperature:g}"),
        ("top p", f"{sampling.top_p:g}"),
        ("repetition penalty", f"{sampling.repetition_penalty:g}"),
        (
            "answer",
            f"at most {sampling.max_tokens:,} tokens" if sampling.max_tokens else "as long as the context allows",
        ),
        ("thinking", sampling.thinking),
    )


def list_evaluation(message: models_pb2.EvaluationPolicy) -> tuple[tuple[str, str], ...]:
    """Name and value of how a specialist's candidates are evaluated."""
    policy = decode(EvaluationPolicy, message)
    limits = (
        ("held-out rows", f"at most {policy.max_rows:,}"),
        ("answers", f"at most {policy.max_answers:,}" if policy.max_answers else ""),
        ("house examples", f"{policy.few_shot:,}"),
        ("guidelines", f"{len(policy.guidelines):,} characters" if policy.guidelines else ""),
        ("optimised prompt", "yes" if policy.optimize_prompt else ""),
        ("external models", ", ".join(policy.external_models)),
        ("suites", ", ".join(policy.suites) or "all"),
        ("per suite", f"at most {policy.max_suite_items:,} items" if policy.max_suite_items else ""),
        ("judged by", ", ".join(criterion.name for criterion in policy.criteria)),
    )
    return tuple((name, limit) for name, limit in limits if limit)


def _list_row_limits(policy: RowPolicy) -> Iterator[tuple[str, str]]:
    """What differs from the defaults."""
    defaults = RowPolicy()
    if policy.max_document_percent != defaults.max_document_percent:
        percent = policy.max_document_percent
        yield "per document", f"{percent} % of the train tokens" if percent else "no limit"


def is_ended(run: training_pb2.Run) -> bool:
    return run.state in ENDED


def awaits_approval(run: training_pb2.Run) -> bool:
    """True if the run starts only after somebody approves it."""
    return run.state == training_pb2.RUN_STATE_AWAITING_APPROVAL


def stage_state(run: training_pb2.Run, index: int) -> str:
    """State of a run's stage: `done`, the run's own state for the current stage, or `not started`."""
    if run.stages[index].adapter_digest:
        return "done"
    return word(run, "state") if index == run.stage else "not started"


def sort_queue(runs: Iterable[training_pb2.Run]) -> tuple[training_pb2.Run, ...]:
    """The waiting runs in the order in which they will start: highest priority first, then oldest first."""
    waiting = [run for run in runs if run.state == training_pb2.RUN_STATE_QUEUED]
    return tuple(sorted(waiting, key=lambda run: (-run.priority, run.create_time.ToNanoseconds(), run.run_id)))


def compare_plan(run: training_pb2.Run, now: datetime) -> tuple[Figure, ...]:
    """The plan compared with what the run used, or has used so far; empty without a plan."""
    if not run.HasField("plan"):
        return ()
    plan = run.plan
    forecast = (plan.rows, plan.tokens, plan.steps, plan.memory_bytes, plan.seconds, plan.price.total)
    names = ("rows", "tokens", "steps", "memory", "time", "price")
    units = ("count", "count", "count", "bytes", "seconds", plan.price.currency)
    figures = map(Figure, names, units, forecast, _list_used(run, now), _list_errors(run))
    return (*figures, *_list_skipped(run))


def _list_skipped(run: training_pb2.Run) -> tuple[Figure, ...]:
    """Rows that are too long, if there are any."""
    used = run.report.rows_skipped if run.HasField("report") else None
    forecast = run.plan.rows_skipped
    return (Figure("rows left out", "count", forecast, used),) if forecast or used else ()


def _list_used(run: training_pb2.Run, now: datetime) -> tuple[float | None, ...]:
    if run.HasField("report"):
        used = run.report
        return (used.rows, used.tokens, used.steps, used.memory_bytes, used.seconds, used.price.total)
    if not run.HasField("start_time"):
        return (None,) * 6
    # The steps of earlier stages are not reported.
    steps = run.progress.step if run.HasField("progress") and run.stage == 0 else None
    end = to_datetime(run.end_time) if run.HasField("end_time") else now
    seconds = (end - to_datetime(run.start_time)).total_seconds()
    plan, price = run.plan, run.plan.price
    spent = price.teacher + price.annotation + price.compute * seconds / plan.seconds if plan.seconds else None
    return (None, None, steps, run.progress.memory_bytes or None, seconds, spent)


def _list_errors(run: training_pb2.Run) -> tuple[float | None, ...]:
    if not run.HasField("report"):
        return (None,) * 6
    plan, used = run.plan, run.report
    errors = (used.tokens_error, _error(plan.steps, used.steps), used.memory_error, used.seconds_error)
    return (_error(plan.rows, used.rows), *errors, _error(plan.price.total, used.price.total))


def _error(forecast: float, used: float) -> float | None:
    return forecast / used - 1 if used else None
