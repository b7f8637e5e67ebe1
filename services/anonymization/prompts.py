"""Anonymising one prompt with surrogates that are drawn only for it and live as long as the call."""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import Anonymized, AnonymizedPrompt
from services.anonymization.ports import Issuer
from services.anonymization.recognise.caches import clear_caches
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.lists import NO_LISTS, TermLists
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.review.terms import NO_TERMS, HashedTerms
from services.anonymization.surrogates.forms import NAME_WORDS, normal
from services.anonymization.surrogates.surrogates import MAX_CANDIDATES, Surrogates
from tailor.errors import Reason, ResourceExhausted
from tailor.values import Labels

KEY_BYTES = 32
MAX_DRAWS = 8
SHORTEST_WORD = 3
# If the model wrote such a word in its own meaning, it would be mistaken for a surrogate.
MISTAKABLE = ("places", "never", "departments", "not_names", "titles", "titles_male", "titles_female", "kinds_last")


class PromptIssuer(Issuer):
    """Keeps the surrogates of one prompt. None is an ordinary word, a word of the texts `beside` it, or part of another surrogate."""

    def __init__(self, lexicon: Lexicon, beside: str) -> None:
        self._lexicon = lexicon
        self._beside = beside
        self._taken = {fold(word) for word in re.findall(r"[^\W_]+", beside)}
        self._issued: dict[tuple[str, str], tuple[str, str]] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        entry = (entity_type, key)
        if entry not in self._issued:
            surrogate = self._draw(entity_type, value, propose)
            self._taken.update(_parts(entity_type, surrogate))
            self._issued[entry] = (surrogate, value)
        return self._issued[entry][0]

    def words(self) -> dict[str, str]:
        """The true words of names by surrogate, spelt as in the middle of a sentence."""
        named = (pair for (kind, _), pair in self._issued.items() if kind in NAME_WORDS)
        return {surrogate: value.title() if value.isupper() or value.islower() else value for surrogate, value in named}

    def _draw(self, entity_type: str, value: str, propose: Callable[[int], str]) -> str:
        for surrogate in map(propose, range(MAX_CANDIDATES)):
            free = surrogate.casefold() != value.casefold() and self._taken.isdisjoint(_parts(entity_type, surrogate))
            if free and (self._is_distinct(surrogate) if entity_type in NAME_WORDS else surrogate not in self._beside):
                return surrogate
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")

    def _is_distinct(self, name: str) -> bool:
        """True for a name that has no other meaning."""
        return all(
            len(part) >= SHORTEST_WORD
            and not self._lexicon.is_plain(part)
            and not self._lexicon.has_any(MISTAKABLE, part)
            for part in name.split("-")
        )


class EphemeralPromptAnonymizer:
    """Replaces the personal values of a prompt. Draws new surrogates for every call, and stores nothing. Thread-safe."""

    def __init__(
        self,
        analyzer: TextAnalyzer,
        terms: HashedTerms = NO_TERMS,
        *,
        lists: TermLists = NO_LISTS,
        apart: TextAnalyzer | None = None,
    ) -> None:
        """`apart` reads prompts, so that none waits for a document; without it, one is made."""
        self._lists = lists
        policy = analyzer.policy.reversible()
        self._analyzer = apart.with_policy(policy, cache_size=0) if apart else analyzer.apart(policy, cache_size=0)
        self._surrogates = Surrogates(PromptIssuer(analyzer.lexicon, ""), analyzer.lexicon, b"")
        self._terms = terms

    def anonymize(self, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]) -> AnonymizedPrompt:
        """Anonymise texts that belong together.

        The texts in `beside` are context: they are not changed, and no surrogate repeats one of their words.
        Raises ResourceExhausted (NO_SURROGATE_LEFT) if no distinct surrogates are found.
        """
        try:
            lexicon = self._analyzer.lexicon_for("\n\n".join((*texts, *beside)))
            for _ in range(MAX_DRAWS):
                issuer = PromptIssuer(lexicon, "\n".join(beside))
                surrogates = self._surrogates.with_issuer(issuer, secrets.token_bytes(KEY_BYTES))
                result = TextAnonymizer(self._analyzer, surrogates, terms=self._terms, lists=self._lists).anonymize(
                    texts, labels
                )
                pairs = _pairs(texts, result, issuer.words())
                if pairs is not None and not any(contains(text, name) for text in (*texts, *beside) for name in pairs):
                    return AnonymizedPrompt(result.texts, pairs)
        finally:
            clear_caches()
        raise ResourceExhausted(
            Reason.NO_SURROGATE_LEFT, "No surrogates were found that distinguish the prompt's values."
        )


def _parts(entity_type: str, surrogate: str) -> set[str]:
    """The surrogate and, for a double name, its parts: no other surrogate may contain them."""
    return {fold(surrogate), *(fold(surrogate).split("-") if entity_type in NAME_WORDS else ())}


def _pairs(texts: Iterable[str], result: Anonymized, words: Mapping[str, str]) -> dict[str, str] | None:
    """The values by surrogate, as first written; None if a surrogate would stand for two values."""
    pairs: dict[str, str] = {}
    for text, changes in zip(texts, result.changes, strict=True):
        for change in changes:
            value = text[change.start : change.end]
            if change.replacement == value or not change.is_surrogate:
                continue
            first = pairs.setdefault(change.replacement, value)
            if first != value and _form(change.entity_type, first) != _form(change.entity_type, value):
                return None
    return {**words, **pairs}


def _form(entity_type: str, value: str) -> str:
    """The form that all spellings of one value share."""
    return normal(entity_type, " ".join(value.split())).casefold()


def contains(text: str, words: str) -> bool:
    """True if the text contains the words, and not only as a part of longer words.

    A word also ends between a letter and a digit, and before or after a script without spaces.
    """
    return (
        re.search(f"(?<!{_continuation(words[0])}){re.escape(words)}(?!{_continuation(words[-1])})", text) is not None
    )


def _continuation(letter: str) -> str:
    """A pattern for the characters that continue a letter's word."""
    return r"\d" if letter.isdigit() else r"[^\W\d\u2e80-\U0010ffff]" if re.match(r"\w", letter) else "(?!)"
