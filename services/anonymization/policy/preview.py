"""Showing what a policy does: the barrier itself over a vault that is only read."""

from collections.abc import Callable

from services.anonymization.anonymizer import Engine
from services.anonymization.domain import NO_LABELS, Anonymized, Labels
from services.anonymization.policy.pattern_check import parse_tried_policy
from services.anonymization.recognise.analyzer import Analyzer, paragraphs
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.vault import MAX_ATTEMPTS, SqlVault
from tailor.errors import Reason, ResourceExhausted


class DryVault:
    """Reads the vault, and keeps what it draws no longer than it lives."""

    def __init__(self, vault: SqlVault) -> None:
        self._vault = vault
        self._drawn: dict[tuple[str, str], str] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate that the value has, or one that it might be given."""
        place = (entity_type, key)
        if place not in self._drawn:
            self._drawn[place] = self._vault.find(entity_type, key) or self._draw(entity_type, key, value, propose)
        return self._drawn[place]

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """Nothing: a dry run reveals no values."""
        del entity_type, surrogate
        return None

    def _draw(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        taken = {surrogate for (kind, _), surrogate in self._drawn.items() if kind == entity_type}
        for surrogate in map(propose, range(MAX_ATTEMPTS)):
            if surrogate not in taken and self._vault.is_free(entity_type, key, value, surrogate):
                return surrogate
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")


class Rehearsed:
    """What texts would become under one policy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS) -> Anonymized:
        """What the texts would become."""
        return self._engine.anonymize(texts, labels)

    @property
    def policy_digest(self) -> str:
        """The policy's digest."""
        return self._engine.policy.digest


class Rehearsals:
    """Sets up rehearsals over the real vault. `refresh` is called before each: who is suppressed may have changed."""

    def __init__(
        self, analyzer: Analyzer, surrogates: Surrogates, vault: SqlVault, refresh: Callable[[], None]
    ) -> None:
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._vault = vault
        self._refresh = refresh

    def rehearse(self, policy: str, text: str) -> Rehearsed:
        """For one text; InvalidArgument names every wrong field of the policy."""
        self._refresh()
        analyzer = self._analyzer
        if policy:
            # A pattern that does not end would hold up the whole service; it sees the text and each of its paragraphs.
            texts = [text, *(paragraph for _, paragraph in paragraphs(text))]
            analyzer = analyzer.under(parse_tried_policy(policy, texts))
        return Rehearsed(Engine(analyzer, self._surrogates.over(DryVault(self._vault))))
