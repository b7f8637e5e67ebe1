"""Facts about a person in the special categories of GDPR Art. 9 and 10: belief, opinion, union, health, orientation, origin.

A word list alone would mask "Catholic schools" and "the diabetes market". So a listed word counts only in a sentence about a person: with a
pronoun, a role, a kinship word, a title or a given name near it, and without a following word that makes it a thing. Labels such as
"Religion:" need no person. The lists are data, one file per language in `special/`.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from services.anonymization.domain import SPECIAL_CATEGORIES, Finding
from services.anonymization.recognise.lexicon import fold
from services.anonymization.recognise.tokens import Token, is_space, tokenise

FOLDER = Path(__file__).with_name("special")
LANGUAGES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
SCORE = 0.75
LABEL_SCORE = 0.85
# How many words before and after a term show that it is about a person.
WORDS_BEFORE, WORDS_AFTER = 14, 8
# Terms are found by the first letters of their first word.
KEY_LETTERS = 3
# The lists of a type: terms need a person near them, certain ones do not, openers need one and are followed by the statement.
KINDS = ("terms", "certain", "openers")
LONGEST_STATEMENT = 5
LONGEST_TITLE = 4
SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n\s*\n|[|\t]|\n(?=[-*•#])")
# The value after a label ends with its line, cell or sentence.
LABELLED = (
    r"(?im)(?:^|(?<=[|;,(]))[ \t>*_-]*(?P<label>{labels})[ \t*_]*(?::|\||=)[ \t*_]*(?P<value>[^\n|;,.()]{{2,60}})"
)
# Words after a label if nothing is known.
NO_VALUE = frozenset({"n/a", "na", "none", "unknown", "-", "yes", "no", "tbd", "nil"})


@dataclass(frozen=True)
class Term:
    """A listed word or phrase, folded. A word that ended with `*` in the file matches every word that begins with it.

    The words after an opener, such as "diagnosed with", are the statement.
    """

    entity_type: str
    words: tuple[str, ...]
    open: tuple[bool, ...]
    kind: str

    def matches(self, words: Sequence[str]) -> bool:
        """True if the folded words begin with the term."""
        return len(words) >= len(self.words) and all(
            word.startswith(expected) if is_open else word == expected
            for word, expected, is_open in zip(words, self.words, self.open, strict=False)
        )


@dataclass(frozen=True)
class SpecialWords:
    """One language's lists. `things` are words that make the term before them a thing and no statement about a person.

    `stops` are words that end the statement after an opener. `also_names` are terms that are people's names as well.
    """

    cues: frozenset[str]
    things: frozenset[str]
    stops: frozenset[str]
    also_names: frozenset[str]
    terms: Mapping[str, tuple[Term, ...]]
    labels: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(cls, language: str) -> "SpecialWords | None":
        """Read a language's file; None if there is none."""
        path = FOLDER / f"{language}.toml"
        return cls.read(tomllib.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "SpecialWords":
        """Make the lists from the tables of a file."""
        terms: dict[str, list[Term]] = {}
        labels = {}
        for kind in SPECIAL_CATEGORIES:
            table = content.get(kind, {})
            labels[kind] = tuple(table.get("labels", ()))
            for term in chain.from_iterable(_terms(kind, name, table.get(name, ())) for name in KINDS):
                terms.setdefault(term.words[0][:KEY_LETTERS], []).append(term)
        cues = content["person"]
        # The longest term first, so that "type 2 diabetes" is not found as "diabetes".
        ordered = {key: tuple(sorted(same_key, key=lambda term: -len(term.words))) for key, same_key in terms.items()}
        persons, things, stops, also_names = (
            frozenset(map(fold, cues.get(name, ()))) for name in ("cues", "things", "stops", "also_names")
        )
        return cls(persons, things, stops, also_names, ordered, labels)

    @cached_property
    def label_forms(self) -> Mapping[str, re.Pattern[str]]:
        """The pattern of each type's labels."""
        return {
            kind: re.compile(LABELLED.format(labels="|".join(map(re.escape, sorted(labels, key=len, reverse=True)))))
            for kind, labels in self.labels.items()
            if labels
        }


@dataclass(frozen=True)
class ParagraphWords:
    """A text and its words."""

    text: str
    tokens: Sequence[Token]

    @cached_property
    def folded(self) -> Sequence[str]:
        """The words, folded."""
        return [fold(token.text) for token in self.tokens]


class SpecialCategoryRecogniser:
    """Finds statements about a person in one language. Finds nothing in a language without lists."""

    def __init__(self, language: str, is_given_name: Callable[[str], bool] = lambda _: False) -> None:
        self._words = SpecialWords.load(language)
        self._is_given_name = is_given_name

    def find(self, text: str) -> list[Finding]:
        """The statements in a paragraph."""
        return [] if self._words is None else [*self._find_labelled(self._words, text), *self._find(self._words, text)]

    def _find_labelled(self, words: SpecialWords, text: str) -> Iterator[Finding]:
        for kind, form in words.label_forms.items():
            for match in form.finditer(text):
                value = match["value"].rstrip(" \t*_-")
                if value.strip().casefold() not in NO_VALUE:
                    start = match.start("value")
                    yield Finding(start, start + len(value), kind, LABEL_SCORE)

    def _find(self, words: SpecialWords, text: str) -> Iterator[Finding]:
        paragraph = ParagraphWords(text, tokenise(text))
        tokens, place = paragraph.tokens, 0
        while place < len(tokens):
            term = _longest_term(words, paragraph.folded, place)
            end = place + len(term.words) if term else place + 1
            start = place
            if term and term.kind == "openers":
                start, end = end, _end_of_statement(words, tokens, end)
            if term and self._is_statement(words, paragraph, term, start, end):
                yield Finding(tokens[start].start, tokens[end - 1].bare_end, term.entity_type, SCORE)
            place = max(end, place + 1)

    def _is_statement(self, words: SpecialWords, paragraph: ParagraphWords, term: Term, start: int, end: int) -> bool:
        """True if the words from start to end say something about a person."""
        tokens = paragraph.tokens
        is_phrase = (
            start < end and _is_phrase(tokens[start:end]) and not self._is_part_of_name(words, tokens, start, end)
        )
        return is_phrase and (term.kind == "certain" or self._is_about_person(words, paragraph, start, end))

    def _is_about_person(self, words: SpecialWords, paragraph: ParagraphWords, start: int, end: int) -> bool:
        """True if the sentence of the words from start to end is about a person, and the word after them makes it no thing."""
        tokens, folded = paragraph.tokens, paragraph.folded
        if end < len(tokens) and is_space(tokens[end].gap) and folded[end] in words.things:
            return False
        near = (*range(max(0, start - WORDS_BEFORE), start), *range(end, min(len(tokens), end + WORDS_AFTER)))
        return any(
            (folded[index] in words.cues or self._is_name(tokens[index]))
            and not _has_sentence_end(paragraph.text, tokens[index], tokens[start])
            for index in near
        )

    def _is_part_of_name(self, words: SpecialWords, tokens: Sequence[Token], start: int, end: int) -> bool:
        """True for the "Christian" of Christian Berger and the "Jain" of Ravi Jain."""
        if end - start > 1 or not tokens[start].is_capitalised:
            return False
        is_first = end < len(tokens) and is_space(tokens[end].gap) and tokens[end].is_capitalised
        is_last = start > 0 and is_space(tokens[start].gap) and tokens[start - 1].is_capitalised
        if fold(tokens[start].text) in words.also_names:
            return is_first or is_last
        return (is_last and self._is_name(tokens[start - 1])) or (is_first and self._is_name(tokens[start]))

    def _is_name(self, token: Token) -> bool:
        return token.is_capitalised and self._is_given_name(token.bare)


def _terms(entity_type: str, kind: str, lines: Iterable[str]) -> Iterator[Term]:
    for line in lines:
        words = line.split()
        folded = tuple(fold(word.rstrip("*")) for word in words)
        yield Term(entity_type, folded, tuple(word.endswith("*") for word in words), kind)


def _longest_term(words: SpecialWords, folded: Sequence[str], place: int) -> Term | None:
    """The longest term that begins at a place."""
    listed = words.terms.get(folded[place][:KEY_LETTERS], ())
    return next((term for term in listed if term.matches(folded[place : place + len(term.words)])), None)


def _end_of_statement(words: SpecialWords, tokens: Sequence[Token], start: int) -> int:
    """The end of the words after an opener: before a stop word or a punctuation mark, at most `LONGEST_STATEMENT` words on."""
    end = start
    while end < min(len(tokens), start + LONGEST_STATEMENT) and is_space(tokens[end].gap):
        if fold(tokens[end].text) in words.stops:
            break
        end += 1
    return end


def _is_phrase(tokens: Sequence[Token]) -> bool:
    return all(is_space(token.gap) for token in tokens[1:])


def _has_sentence_end(text: str, left: Token, right: Token) -> bool:
    first, last = sorted((left, right), key=lambda token: token.start)
    # The full stop after a title or an initial ends no sentence.
    start = first.end + (1 if len(first.text) <= LONGEST_TITLE and text[first.end : first.end + 1] == "." else 0)
    return SENTENCE_END.search(text, start, last.start) is not None
