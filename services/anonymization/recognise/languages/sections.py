"""Detecting the language of each section of a text: by function words, otherwise by a model of letters; short paragraphs inherit.

A text that is too short to tell is never held: it has the language of the paragraph before it, or the first one of the installation.
Of several joined texts, each is asked by itself first: a prompt in English stays English, even if its answer is in another language.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import NamedTuple

from services.anonymization.recognise.analysis import LanguageSection
from services.anonymization.recognise.languages.definition import CODES, LanguageDefinition, load_language
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
# Characters that say more than a Latin letter: kana, Hangul, Chinese.
SYLLABLE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Code, mail addresses, links and paths, whose words have no language.
NO_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|(?<!\S)\S*[@/\\_=<>{}]\S*", re.DOTALL)
MAX_CHARS = 4_000
# Weight of function words that tells a language by itself, its lead over the next covered one, and its share of all words.
LEAST_WEIGHT, LEAD, LEAST_SHARE = 1.5, 1.6, 0.04
# A few words of which one is of one language only, such as a greeting.
SHORT_WEIGHT, SHORT_SHARE = 1.0, 0.2
# The least weight, share and number of function words (a name is often one of them) of a language that no rules cover, and the share of the
# best weight that a sister language may have.
UNCOVERED_WEIGHT, UNCOVERED_SHARE, UNCOVERED_WORDS, ALIKE = 2.0, 0.1, 3, 0.7
LEAST_FOREIGN_LETTERS = 16
LEAST_MODEL_LETTERS = 60
UNKNOWN_SCRIPT = "und"
# Prose in a language whose function words nobody listed: many words, mostly in small letters, next to none of them a function word of a
# covered language. Latin is quoted in texts of all languages, and fills templates.
LEAST_PROSE_WORDS, LEAST_SMALL_SHARE, MOST_COVERED_SHARE = 25, 0.7, 0.15
NEVER_HELD = ("", "la", "eo", "vo", "zxx")
# Norwegian as spaCy calls it.
SAME = {"no": "nb", "nn": "nb"}


class Guess(NamedTuple):
    """The language of a paragraph, or, if it is too short to tell, whether it looks like one that no rules cover."""

    language: str = ""
    is_suspect: bool = False


class SectionDetector:
    """Tells the languages of a text's sections. `detect` is a LanguageDetector; `covered` are the languages with rules. Thread-safe."""

    def __init__(self, detect: Callable[[str], str], covered: Sequence[str]) -> None:
        self._detect = detect
        self._covered = tuple(covered)

    def sections(self, text: str, ends: Sequence[int] = ()) -> list[LanguageSection]:
        """The sections in order, without gaps. A text that tells nothing is in the first covered language.

        If `text` consists of several texts, `ends` are their ends.
        """
        pieces = list(paragraphs(text))
        numbers = [bisect_right(ends, start) for start, _ in pieces]
        languages = _inherit(self._tell_all([piece for _, piece in pieces], numbers), self._covered[0])
        places = [(start, start + len(piece)) for start, piece in pieces]
        sections = []
        for language, group in groupby(zip(places, languages, strict=True), key=lambda row: row[1]):
            together = [place for place, _ in group]
            sections.append(LanguageSection(together[0][0], together[-1][1], language))
        return sections

    def _tell_all(self, pieces: Sequence[str], texts: Sequence[int]) -> list[str]:
        """The language of each paragraph; empty if it has that of the one before. `texts` are the numbers of the paragraphs' texts."""
        guesses = [self._tell(_prose(piece)) for piece in pieces]
        languages = [guess.language for guess in guesses]
        # Short paragraphs that look like a language without rules are read together, so that a letter of short lines is held.
        suspects = [place for place, guess in enumerate(guesses) if guess.is_suspect]
        language = self._tell(_join([pieces[place] for place in suspects])).language if suspects else ""
        if language not in self._covered:
            for place in suspects:
                languages[place] = language
        for _, group in groupby(range(len(pieces)), key=lambda place: texts[place]):
            places = list(group)
            if not any(languages[place] for place in places):
                before = next(filter(None, reversed(languages[: places[0]])), self._covered[0])
                languages[places[0]] = self._tell_whole(_join([pieces[place] for place in places]), before)
        return languages

    def _tell(self, prose: str) -> Guess:
        latin = len(LATIN.findall(prose))
        foreign = len(LETTER.findall(prose)) - latin
        if foreign + 3 * len(SYLLABLE.findall(prose)) > 2 * latin:
            is_enough = foreign >= LEAST_FOREIGN_LETTERS
            return Guess(self._detect(prose) or UNKNOWN_SCRIPT) if is_enough else Guess(is_suspect=True)
        weights, words = weigh(prose)
        ranked = weights.most_common()
        if not ranked:
            return Guess(self._tell_unlisted(prose, 0.0, words))
        language, weight = ranked[0]
        covered = max(weights[name] for name in self._covered)
        if language not in self._covered:
            uncovered = self._tell_uncovered(prose, weights, words) or self._tell_unlisted(prose, covered, words)
            agreed = uncovered or self._agree(prose, ranked)
            return Guess(agreed, is_suspect=not agreed)
        second = next((other for name, other in ranked[1:] if name in self._covered), 0.0)
        is_enough = (weight >= LEAST_WEIGHT and weight >= LEAST_SHARE * words) or (
            weight >= SHORT_WEIGHT and weight >= SHORT_SHARE * words
        )
        unlisted = self._tell_unlisted(prose, covered, words)
        if is_enough and weight >= LEAD * second and not unlisted:
            return Guess(language)
        return Guess(unlisted or self._agree(prose, ranked))

    def _tell_uncovered(self, prose: str, weights: Counter[str], words: int) -> str:
        """The language that no rules cover, if function words and the model of letters agree on it."""
        best = max(weights.values())
        is_enough = best >= UNCOVERED_WEIGHT and best >= UNCOVERED_SHARE * words
        if not is_enough or len(LETTER.findall(prose)) < LEAST_MODEL_LETTERS:
            return ""
        code = self._detect(prose)
        detected = SAME.get(code, code)
        if detected in self._covered or weights[detected] < ALIKE * best:
            return ""
        by_word = _function_words()
        different = sum(detected in by_word.get(word, ()) for word in set(WORD.findall(prose.lower())))
        return detected if different >= UNCOVERED_WORDS else ""

    def _tell_unlisted(self, prose: str, covered: float, words: int) -> str:
        """The language of prose without function words that are known; empty if it is in a covered language or no prose."""
        if words < LEAST_PROSE_WORDS or covered > MOST_COVERED_SHARE * words:
            return ""
        if sum(map(str.islower, WORD.findall(prose))) < LEAST_SMALL_SHARE * words:
            return ""
        code = self._detect(prose)
        return "" if code in NEVER_HELD or code in self._covered else SAME.get(code, code)

    def _agree(self, prose: str, ranked: Sequence[tuple[str, float]]) -> str:
        """The covered language that the model of letters finds in a longer paragraph, if the function words allow it."""
        if len(LETTER.findall(prose)) < LEAST_MODEL_LETTERS:
            return ""
        likely = {name for name, weight in ranked if weight * 2 >= ranked[0][1]}
        detected = self._detect(prose)
        return detected if detected in self._covered and detected in likely else ""

    def _tell_whole(self, prose: str, before: str) -> str:
        """The language of a text whose paragraphs tell nothing each: a list, a form, one line. Of several likely ones it is `before`."""
        language = self._tell(prose).language
        if language:
            return language
        weights = {name: weight for name, weight in weigh(prose)[0].items() if name in self._covered}
        likely = [name for name, weight in weights.items() if weight == max(weights.values())]
        # `Write a memo for` could be English or Portuguese by its function words.
        return before if before in likely else likely[0] if len(likely) == 1 else ""


def _prose(piece: str) -> str:
    """A paragraph without what has no language."""
    return NO_PROSE.sub(" ", piece[:MAX_CHARS])


def _join(pieces: Sequence[str]) -> str:
    """The prose of several paragraphs, as much as tells a language."""
    prose, place = "", 0
    while len(prose) < MAX_CHARS and place < len(pieces):
        prose += _prose(pieces[place]) + "\n"
        place += 1
    return prose


def _inherit(languages: Sequence[str], default: str) -> Iterator[str]:
    """The languages; an empty one becomes that of the paragraph before, and at the beginning that of the first paragraph with one."""
    last = next(filter(None, languages), default)
    for language in languages:
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


def _own_words(language: LanguageDefinition) -> set[str]:
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
