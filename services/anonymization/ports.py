"""The Protocols that have several implementations."""

from collections.abc import Callable
from typing import Protocol

from services.anonymization.domain import NO_LABELS, Anonymized
from tailor.values import Labels


class Issuer(Protocol):
    """Gives a value its surrogate. Both are unique within a type."""

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The value's surrogate, drawn when the value is first seen.

        `key` is the value's normal form; `propose(n)` draws the n-th candidate. Raises ResourceExhausted (NO_SURROGATE_LEFT).
        """
        ...


class Anonymizer(Protocol):
    """Replaces personal values under a policy, or under the one in force."""

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        """Anonymise texts that belong together: a value found in one is replaced in all. The labels choose the policy's rules.

        A value that stands word for word in the texts that `passed` before stays as it is.
        """
        ...
