"""The Protocol of what finds personal values in a text, in one language or in several."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from services.anonymization.domain import Finding, Policy
from services.anonymization.recognise.analysis import Recognition, TextToRead
from services.anonymization.recognise.lexicon import Lexicon

SMALL_CACHE_SIZE = 64


class TextAnalyzer(Protocol):
    """Thread-safe."""

    policy: Policy

    @property
    def lexicon(self) -> Lexicon:
        """The lexicon of the first language. All languages share the names."""
        ...

    def lexicon_of(self, languages: Iterable[str]) -> Lexicon:
        """The words of these languages together; without any, those of the first language."""
        ...

    def lexicon_for(self, text: str) -> Lexicon:
        """The words of the text's languages together."""
        ...

    def find(self, text: str) -> list[Finding]:
        """All findings in the text, overlapping ones included, without what the policy allows or keeps."""
        return list(self.analyze(text).findings)

    def analyze(self, text: str, ends: Sequence[int] = ()) -> Recognition:
        """Like `find`, with disagreements and the languages of the text's sections.

        If `text` consists of several texts, `ends` are their ends: code in one of them does not make names in another less likely.
        Raises DeadlineExceeded (TEXT_TOO_SLOW) and InvalidArgument (LANGUAGE_NOT_COVERED).
        """
        ...

    def recognise(self, question: TextToRead) -> Recognition:
        """All personal values of a text that the policy does not keep.

        Raises what `analyze` raises, and ResourceExhausted (TOO_EXPENSIVE) if a text takes more than a text of its length may.
        """
        ...

    def with_policy(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "TextAnalyzer":
        """The same readers with another policy and a small cache. With `cache_size=0`, no word is remembered."""
        ...

    def apart(self, policy: Policy, cache_size: int = SMALL_CACHE_SIZE) -> "TextAnalyzer":
        """Like `with_policy`, but read apart: no text waits for those of this one. Takes seconds."""
        ...

    def accepting_all(self) -> "TextAnalyzer":
        """The same, but no text is refused for its language."""
        ...
