"""Shared values survive the way over the wire."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tailor import wire
from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref
from tailor.values import Labels, Span, SpanKind


def test_values_survive_both_ways() -> None:
    ref = Ref("s3://corpus/documents/x", "ab" * 32, 12)
    labels = Labels("wiki", "audit", "internal", "publisher")
    assert wire.to_ref(wire.from_ref(ref)) == ref
    assert wire.to_labels(wire.from_labels(labels)) == labels


@pytest.mark.parametrize("kind", SpanKind)
def test_spans_of_every_kind_survive_both_ways(kind: SpanKind) -> None:
    span = Span(kind, 3, 10, 20, level=2)
    assert wire.to_span(wire.from_span(span)) == span


def test_every_kind_of_the_contract_is_known() -> None:
    assert set(wire.SPAN_KINDS) == set(common_pb2.SpanKind.values()) - {common_pb2.SPAN_KIND_UNSPECIFIED}
    assert wire.to_span(common_pb2.Span()) is None


def test_a_reference_needs_its_uri() -> None:
    with pytest.raises(InvalidArgument) as refused:
        wire.to_ref(common_pb2.ObjectRef(sha256="ab", size_bytes=1))
    assert refused.value.reason is Reason.INCOMPLETE_EVENT


def test_moments_keep_their_time_in_utc() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    stamp = wire.from_datetime(moment)
    assert stamp is not None
    assert wire.to_datetime(stamp) == moment
    assert wire.to_datetime(stamp).tzinfo is UTC
    assert wire.from_datetime(None) is None


def test_now_is_the_current_time() -> None:
    assert abs((wire.to_datetime(wire.now()) - datetime.now(UTC)).total_seconds()) < 5
