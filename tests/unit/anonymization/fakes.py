"""In-memory twins of anonymization's Protocols."""

import re
from collections.abc import Callable
from dataclasses import replace

from services.anonymization.domain import NO_LABELS, Action, Anonymized, Change, Ingested
from services.anonymization.ports import Anonymizer, Issuer
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref
from tailor.values import Labels

REF = Ref("s3://quarantine/documents/doc_1/1-ab", "ab", 10)
INGESTED = Ingested("doc_1", "sub_1", 1, "digest", 1, Labels("wiki", "risk", "internal"), REF, "md", "")


class MemoryVault(Issuer):
    """Stores both directions in dictionaries. Several anonymizers may share it."""

    def __init__(self) -> None:
        self.issued: dict[tuple[str, str], str] = {}
        self.values: dict[tuple[str, str], str] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        if (entity_type, key) not in self.issued:
            candidates = (propose(attempt) for attempt in range(200))
            surrogate = next(name for name in candidates if (entity_type, name) not in self.values and name != value)
            self.issued[entity_type, key] = surrogate
            self.values[entity_type, surrogate] = value
        return self.issued[entity_type, key]


class OneNameAnonymizer(Anonymizer):
    """Knows only the name Okafor, and replaces it by Ward."""

    def __init__(self) -> None:
        self.labels: list[Labels] = []
        self.passed: tuple[str, ...] = ()

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        self.labels.append(labels)
        self.passed = passed
        changes = tuple(
            tuple(
                Change(match.start(), match.end(), "PERSON", Action.SURROGATE, "Ward")
                for match in re.finditer("Okafor", text)
            )
            for text in texts
        )
        changed = tuple(text.replace("Okafor", "Ward") for text in texts)
        counts, values = {"PERSON": sum(map(len, changes))}, frozenset({("PERSON", "Ward")})
        return Anonymized(changed, counts, changes, values, policy_digest="policy")


class UncoveredAnonymizer(OneNameAnonymizer):
    """Meets Swedish, which no detector covers."""

    def __init__(self, is_held: bool = True) -> None:
        super().__init__()
        self.is_held = is_held

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        if self.is_held:
            raise InvalidArgument(Reason.LANGUAGE_NOT_COVERED, "A passage is in the language `sv`.")
        return replace(super().anonymize(texts, labels, passed), rules_only_languages=("sv",))
