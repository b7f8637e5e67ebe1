"""Twins in memory of what anonymization needs."""

import re
from collections.abc import Callable

from services.anonymization.domain import (
    NO_LABELS,
    Action,
    Anonymized,
    Change,
    Ingested,
    Labels,
    Outcome,
    Passed,
    Resolved,
    Text,
)
from tailor.errors import InvalidArgument, NotFound, Reason
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
            raise InvalidArgument(Reason.UNREADABLE, "The object does not verify.")
        if self.text is None or self.deleted:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.")
        return self.text

    def delete(self, ref: Ref) -> None:
        self.deleted.append(ref)

    def delete_all(self, document_id: str) -> int:
        there = int(self.text is not None and not self.deleted)
        self.deleted.append(REF)
        return there


class MemoryCorpus:
    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.deleted: list[Ref] = []

    def delete(self, ref: Ref) -> None:
        self.deleted.append(ref)

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

    def texts_of(self, document_id: str) -> list[Ref]:
        mine = [outcome for (name, _), outcome in self.outcomes.items() if name == document_id]
        return [outcome.text for outcome in mine if isinstance(outcome, Passed)]

    def forget(self, document_id: str) -> int:
        mine = [place for place in self.outcomes if place[0] == document_id]
        for place in mine:
            del self.outcomes[place]
        return len(mine)


class MemorySubjects:
    """Remembers what was kept; resolves a subject to all documents."""

    def __init__(self) -> None:
        self.kept: dict[str, frozenset[tuple[str, str]]] = {}
        self.suppressed: list[str] = []

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        self.kept[document_id] = self.kept.get(document_id, frozenset()) | values

    def forget(self, document_id: str) -> int:
        return len(self.kept.pop(document_id, ()))

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        if not dry_run:
            self.suppressed.append(subject)
        return Resolved(tuple(sorted(self.kept)), 1)

    def lift(self, subject: str) -> bool:
        if subject not in self.suppressed:
            return False
        self.suppressed.remove(subject)
        return True


class MemoryAudit:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, str]] = []

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        self.calls.append((caller, entity_type, surrogate, purpose))


class ShoutingAnonymizer:
    """Knows one name."""

    def __init__(self) -> None:
        self.labels: list[Labels] = []

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        self.labels.append(labels)
        changes = tuple(
            tuple(
                Change(found.start(), found.end(), "PERSON", Action.SURROGATE, "Ward")
                for found in re.finditer("Okafor", text)
            )
            for text in texts
        )
        changed = tuple(text.replace("Okafor", "Ward") for text in texts)
        return Anonymized(changed, {"PERSON": sum(map(len, changes))}, changes)
