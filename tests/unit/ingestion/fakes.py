"""Twins in memory of what ingestion needs."""

from collections.abc import Callable
from dataclasses import replace

from services.ingestion.adapters.formats.read import read
from services.ingestion.domain import Candidate, File, Outcome, Parsed, Receipt, Refused, Submission
from services.ingestion.handlers import Intake
from tailor.storage.ref import Ref

DIGEST_KEY = b"d" * 32


class DirectParser:
    def parse(self, file: File) -> Parsed:
        return read(file)


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

    def _keep(self, key: str, outcome: Outcome) -> Outcome:
        self.outcomes[key] = outcome
        self.stated.append(outcome)
        return outcome


def make_intake(**changes: object) -> tuple[Intake, MemoryCatalogue, MemoryQuarantine]:
    catalogue, quarantine = MemoryCatalogue(), MemoryQuarantine()
    intake = Intake(DirectParser(), quarantine, catalogue, DIGEST_KEY, 20 * 2**20, 6_000_000, lambda: 1_700_000_000_000)
    return replace(intake, **changes), catalogue, quarantine  # type: ignore[arg-type]


def make_receipt(key: str, submission: Submission) -> Receipt:
    return Receipt(key, f"sub_{key}", f"doc_spare_{key}", lambda: submission)
