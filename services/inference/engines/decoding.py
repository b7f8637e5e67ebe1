"""Decodes tokens into text as they are generated."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

# The text of a token that is a part of a character.
PARTIAL = "�"


class Decoded(NamedTuple):
    """Characters that are certain by now, and True if a stop text was reached."""

    text: str
    stopped: bool


class Detokenizer:
    """Decodes one answer: whole characters only, and nothing of a stop text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...]) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._sent = 0

    def add(self, token: int) -> Decoded:
        """Add a token, and return the characters that are certain by now."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(PARTIAL):
            return Decoded("", stopped=False)
        positions = [position for position in (text.find(stop, self._sent) for stop in self._stop) if position >= 0]
        if positions:
            return Decoded(self._release(text, min(positions)), stopped=True)
        return Decoded(self._release(text, len(text) - self._possible_stop(text)), stopped=False)

    def rest(self) -> str:
        """The characters that were held back, when no more tokens follow."""
        text = self._decode(self._tokens)
        return self._release(text, len(text))

    def _possible_stop(self, text: str) -> int:
        """Length of the longest end of the text that may become a stop text."""
        lengths = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(lengths, default=0)

    def _release(self, text: str, end: int) -> str:
        part = text[self._sent : end]
        self._sent = max(self._sent, end)
        return part
