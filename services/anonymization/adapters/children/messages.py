"""The messages between the service and a reading child, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from services.anonymization.domain import Policy
from services.anonymization.recognise.analysis import Recognition, TextToRead
from services.anonymization.recognise.detectors.definition import Detector
from tailor.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Reason, TailorError, Unavailable

ERRORS = {kind.__name__: kind for kind in (InvalidArgument, FailedPrecondition, DeadlineExceeded, Unavailable)}


class Operation(StrEnum):
    """The work of a child on a text."""

    RECOGNISE = "recognise"
    ANALYZE = "analyze"
    SECTIONS = "sections"


@dataclass(frozen=True)
class Installation:
    """The detectors and languages that a child loads, as `load_section_analyzer` takes them."""

    detectors: tuple[Detector, ...]
    policy: Policy
    languages: tuple[str, ...]
    phone_regions: tuple[str, ...]
    is_held: bool


@dataclass(frozen=True)
class ReadRequest:
    """A text and what to do with it, under a policy, within limits of processor time and memory."""

    operation: Operation
    question: TextToRead
    policy: Policy
    cache_size: int
    accepts_all: bool
    cpu_seconds: float
    memory_bytes: int


INSTALLATION, REQUEST, POLICY = TypeAdapter(Installation), TypeAdapter(ReadRequest), TypeAdapter(Policy)
RECOGNITION = TypeAdapter(Recognition)


def encode_error(error: TailorError) -> bytes:
    """The answer of a text that is refused."""
    return json.dumps({"error": type(error).__name__, "reason": error.reason, "message": error.message}).encode()


def decode(frame: bytes) -> Recognition:
    """The child's answer. Raises the error that it reports."""
    if frame.startswith(b'{"error"'):
        content: Mapping[str, Any] = json.loads(frame)
        raise ERRORS[content["error"]](Reason(content["reason"]), content["message"])
    return RECOGNITION.validate_json(frame)
