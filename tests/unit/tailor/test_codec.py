from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

import pytest

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2
from tailor.codec import decode, encode, update
from tailor.errors import InvalidArgument
from tailor.values import EvaluationPolicy, Filters, RowPolicy, SamplingDefaults, Selection, Span, SpanKind


class State(Enum):
    QUEUED = "waits"
    RUNNING = "works"


@dataclass(frozen=True)
class Step:
    recipe: str
    dataset_digest: str = "none"


@dataclass(frozen=True)
class Work:
    """A run's name, with a few of its fields."""

    run_id: str
    state: State
    stages: tuple[Step, ...] = ()
    create_time: datetime | None = None
    note: str = field(default="only here")


@dataclass(frozen=True)
class Figures:
    metric: str
    gains: dict[str, "Bounds"]


@dataclass(frozen=True)
class Bounds:
    low: float
    high: float


NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_a_value_and_its_message_say_the_same() -> None:
    work = Work("run_1", State.RUNNING, (Step("lora", "abc"), Step("dpo", "def")), NOON)
    message = encode(training_pb2.Run, work)
    assert message.state == training_pb2.RUN_STATE_RUNNING
    assert [stage.recipe for stage in message.stages] == ["lora", "dpo"]
    assert decode(Work, message) == work


def test_maps_of_messages_are_maps_of_dataclasses() -> None:
    figures = Figures("rouge_l", {"base": Bounds(0.5, 0.75)})
    assert decode(Figures, encode(models_pb2.MetricFigures, figures)) == figures


def test_selections_and_filters_survive_both_ways() -> None:
    selection = Selection(("wiki",), ("audit", "tax"), (), ("publisher",))
    filters = Filters(("en", "de"), 1, 2, 3, 4, 5, 6)
    assert decode(Selection, encode(models_pb2.Selection, selection)) == selection
    assert decode(Filters, encode(models_pb2.Filters, filters)) == filters


def test_absent_fields_and_zeros_without_presence_get_the_default() -> None:
    assert decode(RowPolicy, models_pb2.RowPolicy()) == RowPolicy()
    assert decode(SamplingDefaults, models_pb2.SamplingDefaults()) == SamplingDefaults()
    assert decode(EvaluationPolicy, models_pb2.EvaluationPolicy(max_rows=0)) == EvaluationPolicy()
    assert decode(Step, training_pb2.RunStage()) == Step("")


def test_a_zero_with_presence_is_kept() -> None:
    assert decode(SamplingDefaults, models_pb2.SamplingDefaults(temperature=0)).temperature == 0


def test_none_leaves_a_field_absent() -> None:
    assert not encode(training_pb2.Run, Work("run_1", State.QUEUED)).HasField("create_time")


def test_given_values_win() -> None:
    message = training_pb2.Run(run_id="run_1", state=training_pb2.RUN_STATE_QUEUED)
    assert decode(Work, message, run_id="run_2", note="given") == Work("run_2", State.QUEUED, note="given")
    assert encode(training_pb2.Run, Work("run_1", State.QUEUED), run_id="run_3", state=0).run_id == "run_3"


def test_an_update_takes_only_what_is_set() -> None:
    filters = Filters(languages=("de",), min_chars=10)
    assert update(filters, models_pb2.Filters(max_chars=20)) == Filters(languages=("de",), min_chars=10, max_chars=20)


def test_an_enums_unknown_value_is_refused() -> None:
    message = common_pb2.Span(number=1)
    message.kind = 99  # type: ignore[assignment]
    with pytest.raises(InvalidArgument, match="does not know the value 99, but"):
        decode(Span, message)


def test_enums_are_told_apart_by_their_names() -> None:
    span = Span(SpanKind.PAGE, 1, 0, 10)
    assert encode(common_pb2.Span, span).kind == common_pb2.SPAN_KIND_PAGE
    assert decode(Span, encode(common_pb2.Span, span)) == span


def test_an_impossible_time_is_refused() -> None:
    message = training_pb2.Run(state=training_pb2.RUN_STATE_QUEUED)
    message.create_time.seconds = 10**15
    with pytest.raises(InvalidArgument, match="INVALID_VALUE"):
        decode(Work, message)
