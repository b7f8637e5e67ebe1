"""Twins in memory of what ingestion needs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from services.ingestion.adapters.formats.read import read
from services.ingestion.domain import (
    Accepted,
    Candidate,
    File,
    Outcome,
    Parsed,
    Receipt,
    Reference,
    Refused,
    Rejected,
    RejectionReason,
    Submission,
)
from services.ingestion.handlers import Intake, Withdrawals
from tailor.errors import Reason, Unavailable
from tailor.storage.ref import Ref

DIGEST_KEY = b"d" * 32


class DirectParser:
    def parse(self, file: File) -> Parsed:
        return read(file)


class MemoryFetcher:
    """Files by address; an exception among `failures` is raised first."""

    def __init__(self, files: dict[str, File] | None = None, *failures: Exception) -> None:
        self.files = files or {}
        self.failures = list(failures)
        self.asked: list[Reference] = []

    def fetch(self, reference: Reference, max_bytes: int) -> File:
        self.asked.append(reference)
        if self.failures:
            raise self.failures.pop(0)
        if reference.uri not in self.files:
            raise Rejected(RejectionReason.NOT_ALLOWED, "It is not allowed.")
        return self.files[reference.uri]


class MemoryErasure:
    """Remembers requests, each id once; `down` makes it fail like a lost registry."""

    def __init__(self) -> None:
        self.requests: dict[str, str] = {}
        self.down = False

    def request(self, document_id: str, request_id: str) -> None:
        if self.down:
            raise Unavailable(Reason("REGISTRY_UNAVAILABLE"), "registry does not answer.")
        self.requests[request_id] = document_id


class MemoryQuarantine:
    def __init__(self) -> None:
        self.written: list[tuple[str, int, Parsed]] = []

    def write(self, document_id: str, sequence: int, parsed: Parsed) -> Ref:
        self.written.append((document_id, sequence, parsed))
        return Ref(f"s3://quarantine/documents/{document_id}/{sequence}", "0" * 64, len(parsed.text))


class MemoryCatalogue:
    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.stated: list[Outcome] = []
        self.documents: dict[str, tuple[int, str]] = {}

    def find(self, key: str) -> Outcome | None:
        return self.outcomes.get(key)

    def restate(self, outcome: Outcome) -> None:
        self.stated.append(outcome)

    def refuse(self, key: str, external_id: str | None, refused: Refused) -> Outcome:
        return self._keep(key, refused if external_id is None else replace(refused, document_id=f"doc_{external_id}"))

    def accept(self, candidate: Candidate, store: Callable[[str, int], Ref]) -> Outcome:
        document_id = f"doc_{candidate.submission.external_id}"
        holder = next((name for name, (_, digest) in self.documents.items() if digest == candidate.digest), None)
        if holder is not None:
            return self._keep(candidate.key, candidate.duplicate(document_id, holder))
        sequence = self.documents.get(document_id, (0, ""))[0] + 1
        self.documents[document_id] = (sequence, candidate.digest)
        return self._keep(candidate.key, candidate.accepted(document_id, sequence, store(document_id, sequence)))

    def resolve(self, external_id: str) -> str | None:
        return f"doc_{external_id}" if f"doc_{external_id}" in self.documents else None

    def release(self, document_id: str, submission_id: str) -> None:
        outcome = next(each for each in self.outcomes.values() if each.submission_id == submission_id)
        sequence, _ = self.documents[document_id]
        if isinstance(outcome, Accepted) and outcome.sequence == sequence:
            self.documents[document_id] = (sequence, "")

    def _keep(self, key: str, outcome: Outcome) -> Outcome:
        self.outcomes[key] = outcome
        self.stated.append(outcome)
        return outcome


def make_intake(**changes: Any) -> tuple[Intake, MemoryCatalogue, MemoryQuarantine]:
    catalogue, quarantine = MemoryCatalogue(), MemoryQuarantine()
    intake = Intake(
        parser=DirectParser(),
        quarantine=quarantine,
        catalogue=catalogue,
        digest_key=DIGEST_KEY,
        max_file_bytes=20 * 2**20,
        max_chars=6_000_000,
        fetcher=MemoryFetcher(),
        now_ms=lambda: 1_700_000_000_000,
        sleep=lambda _: None,
    )
    return replace(intake, **changes), catalogue, quarantine


def make_withdrawals(catalogue: MemoryCatalogue) -> tuple[Withdrawals, MemoryErasure]:
    erasure = MemoryErasure()
    return Withdrawals(catalogue, erasure, lambda: 1_700_000_000_000), erasure


def make_receipt(key: str, submission: Submission) -> Receipt[Submission]:
    return Receipt(key, f"sub_{key}", f"doc_spare_{key}", lambda: submission)
