"""Convert between protobuf messages and the values of `tailor.words`.

Functions that build a message from all fields of a value, such as `from_labels`, rely on equal names in `tailor.words` and the protos.
"""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.programmes import Programme, resolve_programme
from tailor.storage.ref import Ref
from tailor.words import (
    Criterion,
    EvaluationPolicy,
    Filters,
    JudgingCriterion,
    Labels,
    MetricDefinition,
    OwnTask,
    RowPolicy,
    SamplingDefaults,
    Selection,
    Span,
    SpanKind,
)


def _value(kind: SpanKind) -> common_pb2.SpanKind.ValueType:
    return common_pb2.SpanKind.Value(f"SPAN_KIND_{kind.upper()}")


# Seconds of the years 1 to 9999, which a protobuf timestamp and Python's datetime can hold.
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
NANOS = 1_000_000_000

SPAN_KINDS = {_value(kind): kind for kind in SpanKind}


def now() -> Timestamp:
    stamp = Timestamp()
    stamp.GetCurrentTime()
    return stamp


def from_datetime(moment: datetime | None) -> Timestamp | None:
    """Convert a time-zone-aware moment, or None to None."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def to_datetime(stamp: Timestamp) -> datetime:
    """Convert to a time-zone-aware moment in UTC. Raises InvalidArgument (INVALID_VALUE) for a moment outside of the years 1 to 9999."""
    if not _is_moment(stamp):
        raise InvalidArgument(Reason.INVALID_VALUE, "A time is outside of the years 1 to 9999.")
    return stamp.ToDatetime(UTC)


def enum_name(enum: Any, number: int, prefix: str = "") -> str:
    """The name of an enum's value without its prefix. A value that this release does not know is carried on as `UNKNOWN_<number>`.

    `enum` is a generated enum, such as `documents_pb2.Stage`. Enums are open: a newer service may send a value that is not listed yet.
    """
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return f"UNKNOWN_{number}" if value is None else str(value.name).removeprefix(prefix)


def check_values(message: Message) -> None:
    """Raise InvalidArgument (INVALID_VALUE) for a value that decodes but cannot be stored: a NUL character, or an impossible time."""
    problem = next(_problems(message, message.DESCRIPTOR.name), None)
    if problem is not None:
        raise InvalidArgument(Reason.INVALID_VALUE, f"{problem}.")


def _problems(message: Message, path: str) -> Iterator[str]:
    if isinstance(message, Timestamp):
        if not _is_moment(message):
            yield f"{path} is outside of the years 1 to 9999"
        return
    for field, value in message.ListFields():
        for item in _items(field, value):
            if isinstance(item, str) and "\0" in item:
                yield f"{path}.{field.name} contains a NUL character"
            elif isinstance(item, Message):
                yield from _problems(item, f"{path}.{field.name}")


def _items(field: Any, value: Any) -> Iterator[Any]:
    """The values of a field: one, all of a repeated one, or the keys and values of a map."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from value
        yield from value.values()
    elif field.is_repeated:
        yield from value
    else:
        yield value


def _is_moment(stamp: Timestamp) -> bool:
    return FIRST_SECOND <= stamp.seconds <= LAST_SECOND and 0 <= stamp.nanos < NANOS


def to_ref(message: common_pb2.ObjectRef) -> Ref:
    """Convert a reference. Raises InvalidArgument (INCOMPLETE_EVENT) if the URI is missing."""
    if not message.uri:
        raise InvalidArgument(Reason.INCOMPLETE_EVENT, "An object reference needs its `uri`.")
    return Ref(message.uri, message.sha256, message.size_bytes)


def from_ref(ref: Ref) -> common_pb2.ObjectRef:
    return common_pb2.ObjectRef(uri=ref.uri, sha256=ref.sha256, size_bytes=ref.size_bytes)


def to_labels(message: common_pb2.Labels) -> Labels:
    return Labels(message.source, message.department, message.confidentiality, message.publisher)


def from_labels(labels: Labels) -> common_pb2.Labels:
    return common_pb2.Labels(**asdict(labels))


def to_span(message: common_pb2.Span) -> Span | None:
    """Returns None for a kind that this release does not know."""
    kind = SPAN_KINDS.get(message.kind)
    return None if kind is None else Span(kind, message.number, message.start, message.end, message.level)


def from_span(span: Span) -> common_pb2.Span:
    return common_pb2.Span(kind=_value(span.kind), number=span.number, start=span.start, end=span.end, level=span.level)


def to_selection(message: models_pb2.Selection) -> Selection:
    return Selection(
        tuple(message.sources), tuple(message.departments), tuple(message.confidentialities), tuple(message.publishers)
    )


def from_selection(selection: Selection) -> models_pb2.Selection:
    return models_pb2.Selection(**asdict(selection))


def to_filters(message: models_pb2.Filters) -> Filters:
    return Filters(
        languages=tuple(message.languages),
        min_chars=message.min_chars,
        max_chars=message.max_chars,
        boilerplate_documents=message.boilerplate_documents,
        max_source_documents=message.max_source_documents,
        max_source_percent=message.max_source_percent,
        max_pairs_per_judgement=message.max_pairs_per_judgement,
        same_publisher_tests=message.same_publisher_tests,
    )


def from_filters(filters: Filters) -> models_pb2.Filters:
    return models_pb2.Filters(**asdict(filters))


def to_programme(message: models_pb2.SpecialistChanged) -> Programme:
    """A definition's stages with their recipes."""
    return resolve_programme(message.stages, message.recipe, message.recipes)


def to_row_policy(message: models_pb2.RowPolicy) -> RowPolicy:
    """Convert a policy; fields that are 0 or absent get their defaults."""
    defaults = RowPolicy()
    return RowPolicy(
        max_row_tokens=message.max_row_tokens,
        max_rows_per_document=message.max_rows_per_document,
        max_answer_percent=message.max_answer_percent,
        max_document_percent=(
            message.max_document_percent if message.HasField("max_document_percent") else defaults.max_document_percent
        ),
        max_train_tokens=message.max_train_tokens,
        min_answer_tokens=message.min_answer_tokens or defaults.min_answer_tokens,
        held_out_percent=message.held_out_percent or defaults.held_out_percent,
        max_held_out_rows=message.max_held_out_rows or defaults.max_held_out_rows,
        tasks=tuple(message.tasks),
        own_tasks=tuple(OwnTask(task.name, task.instruction) for task in message.own_tasks),
        knowledge=message.knowledge if message.HasField("knowledge") else defaults.knowledge,
        replay=tuple(message.replay),
        replay_percent=message.replay_percent,
        quiz_questions=message.quiz_questions if message.HasField("quiz_questions") else defaults.quiz_questions,
        max_quiz_documents=message.max_quiz_documents or defaults.max_quiz_documents,
        missed_extra_rows=(
            message.missed_extra_rows if message.HasField("missed_extra_rows") else defaults.missed_extra_rows
        ),
        critique_tokens_per_month=message.critique_tokens_per_month,
    )


def from_row_policy(policy: RowPolicy) -> models_pb2.RowPolicy:
    return models_pb2.RowPolicy(**asdict(policy))


def to_sampling(message: models_pb2.SamplingDefaults) -> SamplingDefaults:
    """Convert sampling; absent fields get their defaults."""
    defaults = SamplingDefaults()
    return SamplingDefaults(
        temperature=message.temperature if message.HasField("temperature") else defaults.temperature,
        top_p=message.top_p if message.HasField("top_p") else defaults.top_p,
        repetition_penalty=(
            message.repetition_penalty if message.HasField("repetition_penalty") else defaults.repetition_penalty
        ),
        max_tokens=message.max_tokens,
    )


def from_sampling(sampling: SamplingDefaults) -> models_pb2.SamplingDefaults:
    return models_pb2.SamplingDefaults(**asdict(sampling))


def to_metric(message: models_pb2.MetricDefinition) -> MetricDefinition:
    """Convert a metric; its kind is its name, and its parameters are `{}`, if they are empty."""
    return MetricDefinition(message.name, message.kind or message.name, message.parameters_json or "{}")


def from_metric(metric: MetricDefinition) -> models_pb2.MetricDefinition:
    return models_pb2.MetricDefinition(**asdict(metric))


def to_evaluation_policy(message: models_pb2.EvaluationPolicy) -> EvaluationPolicy:
    """Convert a policy; absent fields, and a `max_rows` of 0, get their defaults."""
    defaults = EvaluationPolicy()
    has_agreement = message.HasField("min_judge_agreement")
    return EvaluationPolicy(
        max_rows=message.max_rows or defaults.max_rows,
        max_answers=message.max_answers,
        few_shot=message.few_shot if message.HasField("few_shot") else defaults.few_shot,
        guidelines=message.guidelines,
        optimize_prompt=message.optimize_prompt,
        external_models=tuple(message.external_models),
        suites=tuple(message.suites),
        criteria=tuple(Criterion(item.name, item.description) for item in message.criteria),
        min_judge_agreement=message.min_judge_agreement if has_agreement else defaults.min_judge_agreement,
        max_suite_items=message.max_suite_items,
    )


def from_evaluation_policy(policy: EvaluationPolicy) -> models_pb2.EvaluationPolicy:
    return models_pb2.EvaluationPolicy(**asdict(policy))


def to_judging_criterion(message: models_pb2.JudgingCriterion) -> JudgingCriterion:
    return JudgingCriterion(message.name, message.question, message.low, message.high)


def from_judging_criterion(criterion: JudgingCriterion) -> models_pb2.JudgingCriterion:
    return models_pb2.JudgingCriterion(**asdict(criterion))
