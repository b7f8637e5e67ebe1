"""Regular expressions that a specialist names, searched within a limit of time and of text."""

import regex

MAX_CHARS = 100_000
SECONDS = 0.2


class SafePattern:
    """A pattern that cannot stop an evaluation: `timeouts` counts the texts that it could not be matched with in time.

    The time limit is that of the `regex` library, which Python's `re` does not have.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = regex.compile(pattern)
        self.timeouts = 0

    def matches(self, text: str) -> bool:
        """True if the whole text matches. A text that is too long, or that takes too long, does not."""
        if len(text) > MAX_CHARS:
            return False
        try:
            return self._pattern.fullmatch(text, timeout=SECONDS) is not None
        except TimeoutError:
            self.timeouts += 1
            return False

    def is_in(self, text: str) -> bool:
        """True if the pattern matches a part of the text."""
        if len(text) > MAX_CHARS:
            return False
        try:
            return self._pattern.search(text, timeout=SECONDS) is not None
        except TimeoutError:
            self.timeouts += 1
            return False

    def find_all(self, text: str) -> list[str] | None:
        """The matches in the first 100,000 characters of a text; None if it takes too long."""
        try:
            return [match[0] for match in self._pattern.finditer(text[:MAX_CHARS], timeout=SECONDS)]
        except TimeoutError:
            self.timeouts += 1
            return None
