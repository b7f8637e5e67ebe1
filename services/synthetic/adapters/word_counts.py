"""Counts tokens word by word, for tokenizers whose tokens never hold the end of a word and the blank after it."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_WORDS = 200_000
# Sentences of the last few documents, whose rows repeat them.
MAX_SENTENCES = 5_000
# A word with the blanks before it. Line breaks stay inside, because tokens such as `.\n` exist.
WORD = re.compile(r"\s*\S+(?:[^\S ]\s*\S*)*|\s+")
# Ends and beginnings of words: every kind of sign that tokenizers tell apart.
# fmt: off
SIGNS = (
    "a", "Z", "7", ".", ",", "'", "'s", "é", "n\u0303", "中", "ы", "…", "€", "_", "-", '"', ")", "😀", "a\n", "\nb", ".\n\n", "\u00a0",
)
# fmt: on
GAPS = (" ", "  ", "   ", " \n", " \t")


@dataclass
class WordCounts:
    """Remembers the tokens of words and sentences. `encode` counts those of texts. Thread-safe: threads at worst count a text twice."""

    encode: Callable[[Sequence[str]], list[int]]
    _known: dict[str, int] = field(default_factory=dict, repr=False)
    _sentences: dict[str, int] = field(default_factory=dict, repr=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; equal to those that `encode` counts."""
        sentences = list(map(split_sentences, texts))
        known = self._learn_sentences(set(itertools.chain.from_iterable(sentences)))
        return [sum(map(known.__getitem__, parts)) for parts in sentences]

    def _learn_sentences(self, sentences: set[str]) -> dict[str, int]:
        """The counts of at least these sentences. A full memory is replaced, not emptied: another thread may be reading it."""
        known = self._sentences
        if len(known) + len(sentences) > MAX_SENTENCES:
            known = self._sentences = {}
        new = list(sentences.difference(known))
        known.update(zip(new, self._count(new), strict=True))
        return known

    def _count(self, texts: Sequence[str]) -> list[int]:
        words = [WORD.findall(text) for text in texts]
        known = self._learn(set(itertools.chain.from_iterable(words)))
        return [sum(map(known.__getitem__, parts)) for parts in words]

    def _learn(self, words: set[str]) -> dict[str, int]:
        """The counts of at least these words."""
        known = self._known
        if len(known) + len(words) > MAX_WORDS:
            known = self._known = {}
        new = list(words.difference(known))
        known.update(zip(new, self.encode(new), strict=True))
        return known


def split_sentences(text: str) -> list[str]:
    """The text, cut between every full stop or dash and a blank: a word ends there, so the words of the parts are those of the text."""
    return [part for sentence in _split(text, ".") for part in _split(sentence, "-")]


def _split(text: str, sign: str) -> list[str]:
    first, *rest = text.split(f"{sign} ")
    if not rest:
        return [text]
    return [f"{first}{sign}", *(f" {part}{sign}" for part in rest[:-1]), f" {rest[-1]}"]


def splits_at_blanks(tokenizer: Any) -> bool:
    """True if the tokenizer begins a new token at every blank after a word."""
    if tokenizer.pre_tokenizer is None or any(" " in token.content.strip() for token in _added(tokenizer)):
        return False
    text = "".join(f"{end}{gap}{sign}" for end, gap, sign in itertools.product(SIGNS, GAPS, SIGNS))
    starts = {start for _, (start, _) in tokenizer.pre_tokenizer.pre_tokenize_str(text)}
    parts = WORD.findall(text)
    encodings = tokenizer.encode_batch(parts, add_special_tokens=False)
    is_sum = sum(map(len, encodings)) == len(tokenizer.encode(text, add_special_tokens=False))
    return is_sum and starts.issuperset(itertools.accumulate(map(len, parts[:-1])))


def _added(tokenizer: Any) -> list[Any]:
    return list(tokenizer.get_added_tokens_decoder().values())
