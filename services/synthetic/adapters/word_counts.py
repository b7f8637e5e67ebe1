"""Counts tokens word by word, for tokenizers whose tokens never hold the end of a word and the blank after it."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# About 140 bytes each. What is forgotten costs 8 microseconds a word.
MAX_WORDS = 60_000
# Those of the last few documents, whose rows repeat them.
MAX_SENTENCES, MAX_PARAGRAPHS = 5_000, 1_000
# Ends and beginnings of words: every kind of sign that tokenizers tell apart.
# fmt: off
SIGNS = (
    "a", "Z", "7", ".", ",", "'", "'s", "é", "n\u0303", "中", "ы", "…", "€", "_", "-", '"', ")", "😀", "a\n", "\nb", ".\n\n", "\u00a0",
)
# fmt: on
GAPS = (" ", "  ", "   ", " \n", " \t")
LINE_GAPS = ("\n", "\n\n", "\n\n\n", "\n ", "\n\t", "\n \n")
# Stands for a cut while a text is split.
CUT = "\0"


@dataclass(frozen=True)
class WordRule:
    """Cuts texts into words, each with the blanks before it, and into sentences and paragraphs, which are whole words.

    A sentence ends between the two signs of each of the `ends`. `gaps` are those before which the words are cut.
    """

    word: re.Pattern[str]
    ends: tuple[tuple[str, str], ...]
    gaps: tuple[str, ...]
    has_paragraphs: bool = False

    def paragraphs(self, text: str) -> list[str]:
        """The paragraphs of a text, each with the empty line before it; one if blanks stand before an empty line."""
        first, *rest = text.split("\n\n") if self.has_paragraphs else [text]
        if not rest or any(not part or part[-1].isspace() for part in (first, *rest[:-1])):
            return [text]
        return [first, *(f"\n\n{part}" for part in rest)]

    def words(self, text: str) -> list[str]:
        """The words of a sentence."""
        return self.word.findall(text)

    def sentences(self, text: str) -> list[str]:
        """The sentences of a paragraph."""
        if CUT in text:
            return [text]
        for last, first in self.ends:
            text = text.replace(last + first, f"{last}{CUT}{first}")
        return text.split(CUT)


# For tokenizers whose tokens hold line breaks with what is before them, such as `.\n`: line breaks stay inside of words.
AT_BLANKS = WordRule(re.compile(r"\s*\S+(?:[^\S ]\s*\S*)*|\s+"), ((".", " "), ("-", " ")), GAPS)
# Gives far fewer different words.
AT_LINES = WordRule(
    re.compile(r"\s*\S+(?:[^\S \n]\s*\S*)*|\s+"),
    ((".", " "), ("-", " "), (".", "\n"), (":", "\n")),
    GAPS + LINE_GAPS,
    has_paragraphs=True,
)


Counter = Callable[[Sequence[str]], list[int]]


class PartCounts:
    """Counts the tokens of texts by those of their parts, and remembers the latter. Thread-safe: threads at worst count a part twice."""

    def __init__(self, split: Callable[[str], list[str]], count_parts: Counter, limit: int) -> None:
        self._split = split
        self._count_parts = count_parts
        self._limit = limit
        self._known: dict[str, int] = {}

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text."""
        texts_parts = list(map(self._split, texts))
        known = self._learn(set(itertools.chain.from_iterable(texts_parts)))
        return [sum(map(known.__getitem__, parts)) for parts in texts_parts]

    def _learn(self, parts: set[str]) -> dict[str, int]:
        """The counts of at least these parts. A full memory is replaced, not emptied: another thread may be reading it."""
        known = self._known
        if len(known) + len(parts) > self._limit:
            known = self._known = {}
        new = list(parts.difference(known))
        known.update(zip(new, self._count_parts(new), strict=True))
        return known


def count_by_words(encode: Counter, rule: WordRule) -> PartCounts:
    """Counts texts by their paragraphs, these by their sentences, and these by their words; `encode` counts those."""
    sentences = PartCounts(rule.words, encode, MAX_WORDS)
    paragraphs = PartCounts(rule.sentences, sentences.count, MAX_SENTENCES)
    return PartCounts(rule.paragraphs, paragraphs.count, MAX_PARAGRAPHS)


def find_word_rule(tokenizer: Any) -> WordRule | None:
    """The rule by which the tokens of words add up to those of their text; None if the tokenizer may join any two words."""
    if tokenizer.pre_tokenizer is None or any(set(" \n") & set(token.content.strip()) for token in _added(tokenizer)):
        return None
    return next((rule for rule in (AT_LINES, AT_BLANKS) if _adds_up(tokenizer, rule)), None)


def _adds_up(tokenizer: Any, rule: WordRule) -> bool:
    """True if the tokenizer begins a new token at every word of a text that has all gaps between all signs."""
    text = "".join(f"{end}{gap}{sign}" for end, gap, sign in itertools.product(SIGNS, rule.gaps, SIGNS))
    starts = {start for _, (start, _) in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    parts = rule.words(text)
    encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
    is_sum = sum(map(len, encodings)) == len(tokenizer.encode(text, add_special_tokens=False))
    return is_sum and starts.issuperset(itertools.accumulate(map(len, parts[:-1])))


def _added(tokenizer: Any) -> list[Any]:
    return list(tokenizer.get_added_tokens_decoder().values())
