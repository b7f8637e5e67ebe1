"""Anonymising one prompt: its surrogates are drawn for it alone, and live as long as the call."""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping

from services.anonymization.anonymizer import Engine
from services.anonymization.domain import Anonymized, AnonymizedPrompt, Labels
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.lexicon import Lexicon, fold
from services.anonymization.recognise.tokens import tokenise
from services.anonymization.surrogates.forms import NAME_WORDS, normal
from services.anonymization.surrogates.surrogates import MAX_CANDIDATES, Surrogates
from tailor.errors import Reason, ResourceExhausted

KEY_BYTES = 32
DRAWS = 8
SHORTEST_WORD = 3
# Names that also mean something else would be taken for it where the model means that.
MISTAKABLE = ("places", "never", "departments", "not_names", "titles", "titles_male", "titles_female", "kinds_last")


class PromptVault:
    """Keeps the surrogates of one prompt. None is a plain word, a word of the texts beside it, or part of another."""

    def __init__(self, lexicon: Lexicon, beside: str) -> None:
        self._lexicon = lexicon
        self._beside = beside
        self._taken = {fold(word) for word in re.findall(r"[^\W_]+", beside)}
        self._issued: dict[tuple[str, str], tuple[str, str]] = {}

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The surrogate of a value, drawn at first sight."""
        place = (entity_type, key)
        if place not in self._issued:
            surrogate = self._draw(entity_type, value, propose)
            self._taken.update(_parts(entity_type, surrogate))
            self._issued[place] = (surrogate, value)
        return self._issued[place][0]

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """Nothing: what stands behind a prompt's surrogates is told once, with its texts."""
        del entity_type, surrogate
        return None

    def words(self) -> dict[str, str]:
        """Words of names by their surrogates, written as in the middle of a sentence."""
        named = (pair for (kind, _), pair in self._issued.items() if kind in NAME_WORDS)
        return {surrogate: value.title() if value.isupper() or value.islower() else value for surrogate, value in named}

    def _draw(self, entity_type: str, value: str, propose: Callable[[int], str]) -> str:
        for surrogate in map(propose, range(MAX_CANDIDATES)):
            free = surrogate.casefold() != value.casefold() and self._taken.isdisjoint(_parts(entity_type, surrogate))
            if free and (self._is_telling(surrogate) if entity_type in NAME_WORDS else surrogate not in self._beside):
                return surrogate
        raise ResourceExhausted(Reason.NO_SURROGATE_LEFT, f"No unused surrogate of type {entity_type} was found.")

    def _is_telling(self, name: str) -> bool:
        """True for a name that says nothing else."""
        return all(
            len(part) >= SHORTEST_WORD
            and not self._lexicon.is_plain(part)
            and not any(self._lexicon.has(each, part) for each in MISTAKABLE)
            for part in name.split("-")
        )


class PromptBarrier:
    """Satisfies `domain.PromptAnonymizer`. Thread-safe."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer.under(analyzer.policy.reversible(), cache_size=0)
        self._surrogates = Surrogates(PromptVault(analyzer.lexicon, ""), analyzer.lexicon, b"")

    def anonymize(self, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]) -> AnonymizedPrompt:
        """The texts with surrogates that were drawn for them, and their values; ResourceExhausted where none are left."""
        try:
            for _ in range(DRAWS):
                vault = PromptVault(self._analyzer.lexicon, "\n".join(beside))
                surrogates = self._surrogates.over(vault, secrets.token_bytes(KEY_BYTES))
                result = Engine(self._analyzer, surrogates).anonymize(texts, labels)
                pairs = _pairs(texts, result, vault.words())
                if pairs is not None and not any(holds(text, each) for text in (*texts, *beside) for each in pairs):
                    return AnonymizedPrompt(result.texts, pairs)
        finally:
            _forget()
        raise ResourceExhausted(
            Reason.NO_SURROGATE_LEFT, "No surrogates were found that tell the prompt's values apart."
        )


def _parts(entity_type: str, surrogate: str) -> set[str]:
    """What no other surrogate may be: the surrogate, and the names in a double one."""
    return {fold(surrogate), *(fold(surrogate).split("-") if entity_type in NAME_WORDS else ())}


def _pairs(texts: Iterable[str], result: Anonymized, words: Mapping[str, str]) -> dict[str, str] | None:
    """Values by surrogate, as first written; None where one surrogate would stand for two values."""
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
    """Under which two writings are of one value."""
    return normal(entity_type, " ".join(value.split())).casefold()


def holds(text: str, words: str) -> bool:
    """True where the words stand in the text, not as a part of longer ones. Between a letter and a digit a word ends, and where a script
    without spaces begins: what stands so is taken for the surrogate."""
    return re.search(f"(?<!{_kind(words[0])}){re.escape(words)}(?!{_kind(words[-1])})", text) is not None


def _kind(letter: str) -> str:
    """What goes on with a letter's word, as a pattern."""
    return r"\d" if letter.isdigit() else r"[^\W\d\u2e80-\U0010ffff]" if re.match(r"\w", letter) else "(?!)"


def _forget() -> None:
    """Empty what Python and the lexicon remember of the texts they last saw."""
    tokenise.cache_clear()
    fold.cache_clear()
    re.purge()
