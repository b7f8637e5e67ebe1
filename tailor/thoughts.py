"""The thought that a base writes before its answer, and how the two are told apart. Training and serving share this."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from tailor.chat import QUESTION, THINKING, render


@dataclass(frozen=True)
class ThoughtMarkers:
    """The texts around a thought. `start` is empty if the prompt begins it.

    `opener` begins an answer without a thought, if the template names what follows. `control` has the control tokens, which are not
    part of any text.
    """

    start: str
    end: str
    opener: str = ""
    control: tuple[str, ...] = ()


class SplitText(NamedTuple):
    """Characters of a thought, and of the answer after it."""

    thought: str
    answer: str


class _Part(Enum):
    """The part of a text that comes next."""

    UNKNOWN = 0
    THOUGHT = 1
    ANSWER = 2


class ThoughtSplitter:
    """Splits one text, with its control tokens, into thought and answer, piece by piece. White space around both is left out."""

    def __init__(self, markers: ThoughtMarkers) -> None:
        self._markers = markers
        self._part = _Part.UNKNOWN if markers.start else _Part.THOUGHT
        self._pending = ""
        self._has_begun = False

    def add(self, text: str, *, is_last: bool) -> SplitText:
        """Add characters, and return what is certain by now. A thought without an end leaves an empty answer."""
        self._pending += text
        if self._part is _Part.UNKNOWN:
            self._find_part(is_last=is_last)
        thought = self._take_thought(is_last=is_last) if self._part is _Part.THOUGHT else ""
        answer = self._take(len(self._pending)) if self._part is _Part.ANSWER else ""
        return SplitText(thought, answer)

    def _find_part(self, *, is_last: bool) -> None:
        text = self._pending.lstrip()
        openers = {self._markers.start: _Part.THOUGHT, self._markers.opener: _Part.ANSWER}
        for opener, part in openers.items():
            if opener and text.startswith(opener):
                self._part, self._pending = part, text.removeprefix(opener)
                return
        if is_last or not any(opener.startswith(text) for opener in openers):
            self._part = _Part.ANSWER

    def _take_thought(self, *, is_last: bool) -> str:
        end = self._markers.end
        thought, is_over, answer = self._pending.partition(end)
        if is_over:
            taken = self._take(len(thought)).rstrip()
            self._part, self._pending, self._has_begun = _Part.ANSWER, answer, False
            return taken
        certain = thought if is_last else thought[: len(thought) - count_possible(thought, [end])]
        return self._take(len(certain.rstrip()))

    def _take(self, length: int) -> str:
        """The next characters, without control tokens, and without white space before the first."""
        text, self._pending = self._pending[:length], self._pending[length:]
        for token in self._markers.control:
            text = text.replace(token, "")
        text = text if self._has_begun else text.lstrip()
        self._has_begun = self._has_begun or bool(text)
        return text


def count_possible(text: str, words: Iterable[str]) -> int:
    """The length of the longest end of a text with which one of the words may begin, without being whole."""
    return max((n for word in words for n in range(1, len(word)) if text.endswith(word[:n])), default=0)


def find_markers(tokenizer: Any, start: str, end: str) -> ThoughtMarkers | None:
    """The markers of a base whose thoughts begin and end with these texts; None if it does not think (`end` is empty)."""
    if not end:
        return None
    quiet, thinking = (
        render([QUESTION], tokenizer, add_generation_prompt=True, **{THINKING: value}) for value in (False, True)
    )
    opener = quiet.removeprefix(thinking).strip() if quiet.startswith(thinking) else ""
    control = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return ThoughtMarkers(start, end, opener, control)
