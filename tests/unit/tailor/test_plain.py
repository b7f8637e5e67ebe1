"""Plain values of dataclasses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tailor.codec import dump, load
from tailor.storage.ref import Ref
from tailor.values import Labels, Span, SpanKind


@dataclass(frozen=True)
class Version:
    document_id: str
    labels: Labels
    text: Ref | None
    spans: tuple[Span, ...] = ()
    stretches: tuple[tuple[int, int], ...] | None = None
    names: frozenset[str] = frozenset()
    counts: Mapping[str, int] = field(default_factory=dict)


VERSION = Version(
    "doc_1",
    Labels("wiki"),
    Ref("s3://corpus/doc_1", "0" * 64, 7),
    (Span(SpanKind.PAGE, 1, 0, 7),),
    ((0, 2), (3, 5)),
    frozenset({"b", "a"}),
    {"PERSON": 2},
)


@pytest.mark.parametrize("value", [VERSION, Version("doc_2", Labels(), None)])
def test_a_value_is_the_same_after_json(value: Version) -> None:
    assert load(Version, json.loads(json.dumps(dump(value)))) == value


def test_what_is_not_stored_has_its_default_or_is_given() -> None:
    assert load(Version, {"document_id": "doc_2", "text": None, "other": 1}, labels=Labels("b")) == Version(
        "doc_2", Labels("b"), None
    )


def test_an_unknown_word_is_an_error() -> None:
    with pytest.raises(ValueError, match="volume"):
        load(Span, {"kind": "volume", "number": 1, "start": 0, "end": 1})
