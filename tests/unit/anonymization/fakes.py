"""Twins in memory of what anonymization needs."""

from collections.abc import Callable

from services.anonymization.domain import Anonymized, Ingested, Outcome, Text
from tailor.errors import InvalidArgument, NotFound
from tailor.storage.ref import Ref

REF = Ref("s3://quarantine/documents/doc_1/1-ab", "ab", 10)
INGESTED = Ingested("doc_1", "sub_1", 1, "digest", 1, ("wiki", "risk", "internal"), REF, "md", "")


class MemoryVault:
    """Keeps both directions in dictionaries; several engines may share it."""

    def __init__(self) -> None:
        self.issued: dict[tuple[str, str], str] = {}
        self.values: dict[tuple[str, str], str] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        if (entity_type, key) not in self.issued:
            candidates = (propose(attempt) for attempt in range(200))
            surrogate = next(each for each in candidates if (entity_type, each) not in self.values and each != value)
            self.issued[entity_type, key] = surrogate
            self.values[entity_type, surrogate] = value
        return self.issued[entity_type, key]

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        return self.values.get((entity_type, surrogate))


class MemoryQuarantine:
    def __init__(self, text: Text | None, damaged: bool = False) -> None:
        self.text = text
        self.damaged = damaged
        self.deleted: list[Ref] = []

    def read(self, ingested: Ingested) -> Text:
        if self.damaged:
            raise InvalidArgument("UNREADABLE", "The object does not verify.")
        if self.text is None or self.deleted:
            raise NotFound("NO_SUCH_OBJECT", "There is no such object.")
        return self.text

    def delete(self, ref: Ref) -> None:
        self.deleted.append(ref)


class MemoryCorpus:
    def __init__(self) -> None:
        self.texts: list[Text] = []

    def write(self, text: Text) -> Ref:
        self.texts.append(text)
        return Ref("s3://corpus/documents/cd", "cd", len(text.encode()))


class MemoryLedger:
    def __init__(self) -> None:
        self.outcomes: dict[tuple[str, int], Outcome] = {}

    def find(self, document_id: str, sequence: int) -> Outcome | None:
        return self.outcomes.get((document_id, sequence))

    def record(self, outcome: Outcome) -> Outcome:
        return self.outcomes.setdefault((outcome.ingested.document_id, outcome.ingested.sequence), outcome)


class MemoryAudit:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, str]] = []

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        self.calls.append((caller, entity_type, surrogate, purpose))


class ShoutingAnonymizer:
    """Knows one name."""

    def anonymize(self, texts: tuple[str, ...]) -> Anonymized:
        found = sum(text.count("Okafor") for text in texts)
        return Anonymized(tuple(text.replace("Okafor", "Ward") for text in texts), {"PERSON": found})
