"""Text out of tokens, as they come."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

UNFINISHED = "�"


class Written(NamedTuple):
    """Characters to hand on, and whether a stop text was reached."""

    text: str
    stopped: bool


class Detokenizer:
    """Hands on whole characters only, and nothing of a stop text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...]) -> None:
        self._decode = decode
        self._stop = stop
        self._tokens: list[int] = []
        self._sent = 0

    def add(self, token: int) -> Written:
        """Take a token; what can be handed on now."""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        if text.endswith(UNFINISHED):
            return Written("", stopped=False)
        found = [place for place in (text.find(stop, self._sent) for stop in self._stop) if place >= 0]
        if found:
            return Written(self._hand_on(text, min(found)), stopped=True)
        return Written(self._hand_on(text, len(text) - self._held_back(text)), stopped=False)

    def rest(self) -> str:
        """What was held back, once no more tokens come."""
        text = self._decode(self._tokens)
        return self._hand_on(text, len(text))

    def _held_back(self, text: str) -> int:
        """Length of the longest end of the text that may become a stop text."""
        lengths = [n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
        return max(lengths, default=0)

    def _hand_on(self, text: str, end: int) -> str:
        part = text[self._sent : end]
        self._sent = max(self._sent, end)
        return part
