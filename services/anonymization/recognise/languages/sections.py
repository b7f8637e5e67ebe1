"""Telling the language of each section of a text: by its function words, otherwise by a model of letters; short paragraphs inherit."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import groupby

from services.anonymization.domain import Section
from services.anonymization.recognise.languages.definition import CODES, Language, load_language
from services.anonymization.recognise.paragraphs import paragraphs

# Languages in Latin script whose function words spaCy lists: enough to tell what no rules cover.
LISTED = (
    "en", "de", "fr", "es", "it", "nl", "pl", "pt",
    "af", "ca", "cs", "da", "et", "eu", "fi", "ga", "hr", "hu", "id", "is", "lb", "lt", "lv",
    "nb", "ro", "sk", "sl", "sq", "sv", "tl", "tr",
)  # fmt: skip
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
LETTER = re.compile(r"[^\W\d_]")
LATIN = re.compile(r"[A-Za-zªºÀ-ɏḀ-ỿﬀ-ﬆ]")
# Code, mail addresses, links and paths, whose words have no language.
NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\S*[@/\\_=<>{}]\S*", re.DOTALL)
MAX_CHARS = 4_000
# Weight of function words that tells a language by itself, its lead over the next covered one, and its share of all words.
LEAST_WEIGHT, LEAD, LEAST_SHARE = 1.5, 1.6, 0.04
# A few words of which one is of one language only, such as a greeting.
SHORT_WEIGHT, SHORT_SHARE = 1.0, 0.2
# What it takes to say that a text is in a language that no rules cover, and the share of the best weight that a sister language may have.
UNCOVERED_WEIGHT, UNCOVERED_SHARE, ALIKE = 2.0, 0.1, 0.7
LEAST_FOREIGN_LETTERS = 16
LEAST_MODEL_LETTERS = 60
UNKNOWN_SCRIPT = "und"
# Norwegian as spaCy calls it.
SAME = {"no": "nb", "nn": "nb"}


class SectionDetector:
    """Tells the languages of a text's sections. `detect` is a LanguageDetector; `covered` are the languages with rules. Thread-safe."""

    def __init__(self, detect: Callable[[str], str], covered: Sequence[str]) -> None:
        self._detect = detect
        self._covered = tuple(covered)

    def sections(self, text: str) -> list[Section]:
        """The sections in order, without gaps. A text that tells nothing is in the first covered language."""
        pieces = list(paragraphs(text))
        told = [self._tell(piece) for _, piece in pieces]
        if not any(told) and pieces:
            told[0] = self._tell_whole(text)
        languages = _inherit(told, self._covered[0])
        starts = (start for start, _ in pieces)
        ends = (start + len(piece) for start, piece in pieces)
        rows = zip(starts, ends, languages, strict=True)
        sections = []
        for language, group in groupby(rows, key=lambda row: row[2]):
            places = list(group)
            sections.append(Section(places[0][0], places[-1][1], language))
        return sections

    def _tell(self, piece: str) -> str:
        """The language of one paragraph; empty if it does not tell."""
        prose = NO_PROSE.sub(" ", piece[:MAX_CHARS])
        foreign = len(LETTER.findall(prose)) - len(LATIN.findall(prose))
        if foreign >= LEAST_FOREIGN_LETTERS and foreign * 2 > len(LETTER.findall(prose)):
            return self._detect(prose) or UNKNOWN_SCRIPT
        weights, words = weigh(prose)
        ranked = weights.most_common()
        if not ranked:
            return ""
        language, weight = ranked[0]
        if language not in self._covered:
            uncovered = self._tell_uncovered(prose, weights, words)
            return uncovered or self._agree(prose, ranked)
        second = next((other for name, other in ranked[1:] if name in self._covered), 0.0)
        is_enough = (weight >= LEAST_WEIGHT and weight >= LEAST_SHARE * words) or (
            weight >= SHORT_WEIGHT and weight >= SHORT_SHARE * words
        )
        if is_enough and weight >= LEAD * second:
            return language
        return self._agree(prose, ranked)

    def _tell_uncovered(self, prose: str, weights: Counter[str], words: int) -> str:
        """The language that no rules cover, if function words and the model of letters agree on it."""
        best = max(weights.values())
        if (
            best < UNCOVERED_WEIGHT
            or best < UNCOVERED_SHARE * words
            or len(LETTER.findall(prose)) < LEAST_MODEL_LETTERS
        ):
            return ""
        code = self._detect(prose)
        detected = SAME.get(code, code)
        return detected if detected not in self._covered and weights[detected] >= ALIKE * best else ""

    def _agree(self, prose: str, ranked: Sequence[tuple[str, float]]) -> str:
        """The covered language that the model of letters finds in a longer paragraph, if the function words allow it."""
        if len(LETTER.findall(prose)) < LEAST_MODEL_LETTERS:
            return ""
        likely = {name for name, weight in ranked if weight * 2 >= ranked[0][1]}
        detected = self._detect(prose)
        return detected if detected in self._covered and detected in likely else ""

    def _tell_whole(self, text: str) -> str:
        """The covered language of a text whose paragraphs tell nothing each: a list, a form, one line."""
        weights, _ = weigh(NO_PROSE.sub(" ", text[: 2 * MAX_CHARS]))
        ranked = [(name, weight) for name, weight in weights.most_common() if name in self._covered]
        if ranked and (len(ranked) == 1 or ranked[0][1] > ranked[1][1]):
            return ranked[0][0]
        return ""


def _inherit(told: Sequence[str], default: str) -> Iterator[str]:
    """The languages with those of the paragraphs before in the place of empty ones; the first ones have that of the first told."""
    last = next(filter(None, told), default)
    for language in told:
        last = language or last
        yield last


def weigh(prose: str) -> tuple[Counter[str], int]:
    """The weight of each language's function words, and the number of words. A word of several languages is shared among them."""
    words = WORD.findall(prose.lower())
    weights: Counter[str] = Counter()
    by_word = _function_words()
    for word, count in Counter(words).items():
        languages = by_word.get(word, ())
        for language in languages:
            weights[language] += count / len(languages)  # type: ignore[assignment]  # weights are fractions
    return weights, len(words)


def _own_words(language: Language) -> set[str]:
    """The words of letters and forms that the language's data has, without those that are names elsewhere."""
    lists = (
        *language.greetings,
        *language.speech,
        *language.words.get("never", ()),
        *language.words.get("closings", ()),
    )
    return {word.lower() for phrase in lists for word in WORD.findall(phrase) if len(word) > 1}


@cache
def _function_words() -> dict[str, tuple[str, ...]]:
    by_word: dict[str, list[str]] = {}
    for language in LISTED:
        for word in import_module(f"spacy.lang.{language}.stop_words").STOP_WORDS:
            by_word.setdefault(word.lower(), []).append(language)
    for known in filter(None, map(load_language, CODES)):
        for word in _own_words(known):
            if known.code not in by_word.setdefault(word, []):
                by_word[word].append(known.code)
    return {word: tuple(languages) for word, languages in by_word.items()}
