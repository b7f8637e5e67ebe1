"""The one table of how long the fields of a request may be whose content travels in events. Checked at every gRPC door.

Kafka takes records of up to 1 MiB. What is accepted here can always be sent: every event's fields, at their limits, stay below that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from tailor.errors import InvalidArgument, Reason


@dataclass(frozen=True)
class Limit:
    """The most characters of a text, and the most entries of a list."""

    chars: int
    entries: int = 1


SHORT, SLUG, SENTENCE, TEXT = Limit(200), Limit(64), Limit(500), Limit(20_000)
EVENTS = "tailor.api.events.v1"
REGISTRY = "tailor.api.registry.v1"

LIMITS: Mapping[str, Mapping[str, Limit]] = {
    f"{EVENTS}.SpecialistChanged": {
        "name": SLUG,
        "description": Limit(4_000),
        "base": SHORT,
        "recipe": SHORT,
        "stages": Limit(64, 10),
        "recipes": Limit(0, 10),
        "house_terms": Limit(100, 1_000),
        "system_prompt": TEXT,
        "metrics": Limit(0, 50),
        "knowledge_sources": Limit(64, 100),
    },
    f"{EVENTS}.SpecialistChanged.RecipesEntry": {"key": SLUG, "value": SLUG},
    f"{EVENTS}.Selection": {
        "sources": Limit(64, 1_000),
        "departments": Limit(64, 1_000),
        "confidentialities": Limit(64, 100),
        "publishers": Limit(64, 100),
    },
    f"{EVENTS}.Filters": {"languages": Limit(16, 100)},
    f"{EVENTS}.RowPolicy": {"tasks": Limit(64, 100), "own_tasks": Limit(0, 50), "replay": Limit(100, 50)},
    f"{EVENTS}.OwnTask": {"name": SLUG, "instruction": Limit(4_000)},
    f"{EVENTS}.MetricDefinition": {"name": SLUG, "kind": SLUG, "parameters_json": Limit(4_000)},
    f"{EVENTS}.Gate": {"guards": Limit(0, 50), "beat": Limit(64, 20)},
    f"{EVENTS}.Guard": {"metric": SLUG},
    f"{EVENTS}.CanaryPolicy": {"outcome": SLUG},
    f"{EVENTS}.PrimaryMetric": {"metric": SLUG},
    f"{EVENTS}.EvaluationPolicy": {
        "guidelines": TEXT,
        "external_models": Limit(200, 20),
        "suites": Limit(64, 20),
        "criteria": Limit(0, 30),
    },
    f"{EVENTS}.JudgingCriterion": {"name": SHORT, "question": Limit(200), "low": Limit(200), "high": Limit(200)},
    f"{EVENTS}.Criterion": {"name": SHORT, "description": Limit(2_000)},
    f"{REGISTRY}.RecordJudgementRequest": {"comment": Limit(4_000), "ranking": Limit(64, 100)},
    "tailor.api.ingestion.v1.DocumentHeader": {
        "external_id": Limit(512),
        "file_name": Limit(4_096),
        "draft_id": SHORT,
        "request_id": SHORT,
    },
}
# A definition whose fields are all at their limits would still be too large; nobody writes one of this size.
MAX_BYTES: Mapping[str, int] = {f"{EVENTS}.SpecialistChanged": 400_000}


def check_limits(request: Message) -> None:
    """Raise InvalidArgument (FIELD_TOO_LONG) with a violation per field that exceeds the table."""
    violations = dict(_violations(request, ""))
    if violations:
        raise InvalidArgument(
            Reason.FIELD_TOO_LONG, "The request has fields that are too long.", field_violations=violations
        )


def _violations(message: Message, path: str) -> Iterator[tuple[str, str]]:
    limits = LIMITS.get(message.DESCRIPTOR.full_name, {})
    most = MAX_BYTES.get(message.DESCRIPTOR.full_name)
    if most is not None and message.ByteSize() > most:
        yield path.rstrip(".") or message.DESCRIPTOR.name, f"must have at most {most:,} bytes in all"
    for field, value in message.ListFields():
        name, limit = f"{path}{field.name}", limits.get(field.name)
        entries = _entries(field, value)
        if limit is not None and len(entries) > limit.entries and field.is_repeated:
            yield name, f"must have at most {limit.entries:,} entries"
        elif entry_limits := _map_limits(field):
            yield from _map_violations(name, value, entry_limits)
        elif limit is not None and any(isinstance(entry, str) and len(entry) > limit.chars for entry in entries):
            yield name, f"must have at most {limit.chars:,} characters"
        else:
            for entry in entries:
                if isinstance(entry, Message):
                    yield from _violations(entry, f"{name}.")


def _map_violations(name: str, value: Mapping[str, str], limits: Mapping[str, Limit]) -> Iterator[tuple[str, str]]:
    for part, texts in (("key", value.keys()), ("value", value.values())):
        if any(len(text) > limits[part].chars for text in texts):
            yield name, f"must have a {part} of at most {limits[part].chars:,} characters"


def _map_limits(field: Any) -> Mapping[str, Limit]:
    return LIMITS.get(field.message_type.full_name, {}) if _is_map(field) else {}


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _entries(field: Any, value: Any) -> list[Any]:
    if _is_map(field):
        return list(value.values())
    return list(value) if field.is_repeated else [value]
