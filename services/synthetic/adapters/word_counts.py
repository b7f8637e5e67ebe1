"""Counts tokens word by word, for tokenizers whose tokens never hold the end of a word and the blank after it."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_WORDS = 200_000
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
    """Remembers the tokens of words. `encode` counts those of texts. Thread-safe: threads at worst count a word twice."""

    encode: Callable[[Sequence[str]], list[int]]
    _known: dict[str, int] = field(default_factory=dict, repr=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text; equal to those that `encode` counts."""
        words = [WORD.findall(text) for text in texts]
        known = self._learn(set(itertools.chain.from_iterable(words)))
        return [sum(map(known.__getitem__, parts)) for parts in words]

    def _learn(self, words: set[str]) -> dict[str, int]:
        """The counts of at least these words. A full memory is replaced, not emptied: another thread may be reading it."""
        known = self._known
        if len(known) + len(words) > MAX_WORDS:
            known = self._known = {}
        new = list(words.difference(known))
        known.update(zip(new, self.encode(new), strict=True))
        return known


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
