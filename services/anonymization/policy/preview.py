"""A preview of a policy: the anonymizer runs over a vault that is only read, and stores nothing."""

from collections.abc import Callable
from pathlib import Path

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import Anonymized
from services.anonymization.policy.pattern_check import parse_checked_policy
from services.anonymization.ports import Issuer
from services.anonymization.recognise.lists import TermLists
from services.anonymization.recognise.paragraphs import paragraphs
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.review.terms import NO_TERMS, HashedTerms
from services.anonymization.surrogates.surrogates import Surrogates
from services.anonymization.vault.vault import MAX_ATTEMPTS, SqlVault
from tailor.errors import Reason, ResourceExhausted
from tailor.values import Labels


class Preview:
    """Shows what a policy does, and stores nothing. Thread-safe."""

    def __init__(
        self,
        analyzer: TextAnalyzer,
        surrogates: Surrogates,
        vault: SqlVault,
        terms: HashedTerms = NO_TERMS,
        *,
        lists_dir: Path | None = None,
    ) -> None:
        """Previews read the files of names that a policy has from `lists_dir`."""
        self._lists_dir = lists_dir
        self._analyzer = analyzer
        self._surrogates = surrogates
        self._vault = vault
        self._terms = terms

    def preview(self, text: str, policy: str, labels: Labels) -> Anonymized:
        """Show what the text would become under a policy in TOML; if `policy` is empty, under the installation's.

        Raises InvalidArgument (INVALID_POLICY) with a violation for every wrong field.
        """
        analyzer = self._analyzer
        if policy:
            # A pattern that does not end would hold up the whole service. It will see the text and each of its paragraphs.
            texts = [text, *(paragraph for _, paragraph in paragraphs(text))]
            analyzer = analyzer.with_policy(parse_checked_policy(policy, texts))
        surrogates = self._surrogates.with_issuer(_ReadOnlyIssuer(self._vault))
        lists = TermLists(self._lists_dir, analyzer.policy)
        return TextAnonymizer(analyzer, surrogates, terms=self._terms, lists=lists).anonymize((text,), labels)


class _ReadOnlyIssuer(Issuer):
    """Finds issued surrogates in the vault, and draws the others without storing them."""

    def __init__(self, vault: SqlVault) -> None:
        self._vault = vault
        self._drawn: dict[tuple[str, str], str] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        entry = (entity_type, key)
        if entry not in self._drawn:
            self._drawn[entry] = self._vault.find(entity_type, key) or self._draw(entity_type, key, value, propose)
        return self._drawn[entry]

    def _draw(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        taken = {surrogate for (kind, _), surrogate in self._drawn.items() if kind == entity_type}
        for surrogate in map(propose, range(MAX_ATTEMPTS)):
            if surrogate not in taken and self._vault.is_free(entity_type, key, value, surrogate):
                return surrogate
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")
