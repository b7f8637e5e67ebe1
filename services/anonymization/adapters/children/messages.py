"""The messages between the service and a reading child, as JSON."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from services.anonymization.domain import Disagreement, Finding, Policy
from services.anonymization.recognise.analysis import LanguageSection
from services.anonymization.recognise.detectors.definition import Detector
from services.anonymization.recognise.recognition import Recognition, TextToRead
from tailor.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Reason, TailorError, Unavailable

ERRORS = {kind.__name__: kind for kind in (InvalidArgument, FailedPrecondition, DeadlineExceeded, Unavailable)}


class Operation(StrEnum):
    """The work of a child on a text."""

    RECOGNISE = "recognise"
    ANALYZE = "analyze"
    FIND = "find"
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


def encode(recognition: Recognition) -> bytes:
    """The answer of a text that was read."""
    return json.dumps(
        {
            "findings": [astuple(finding) for finding in recognition.findings],
            "disagreements": [astuple(stretch) for stretch in recognition.disagreements],
            "sections": [astuple(section) for section in recognition.sections],
            "allowed": recognition.allowed,
        }
    ).encode()


def encode_error(error: TailorError) -> bytes:
    """The answer of a text that is refused."""
    return json.dumps({"error": type(error).__name__, "reason": error.reason, "message": error.message}).encode()


def decode(frame: bytes) -> Recognition:
    """The child's answer. Raises the error that it reports."""
    content: Mapping[str, Any] = json.loads(frame)
    if "error" in content:
        raise ERRORS[content["error"]](Reason(content["reason"]), content["message"])
    return Recognition(
        tuple(Finding(*values) for values in content["findings"]),
        tuple(
            Disagreement(start, end, kind, tuple(detectors)) for start, end, kind, detectors in content["disagreements"]
        ),
        tuple(LanguageSection(*values) for values in content["sections"]),
        tuple((start, end) for start, end in content["allowed"]),
    )
