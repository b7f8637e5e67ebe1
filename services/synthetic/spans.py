"""Parts of a document: spans of its text, and passages that rows are made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """The stretch [start, end) of a document's text, in characters, that was a `page`, `section`, `sheet`, `slide` or `attachment`."""

    kind: str
    number: int
    level: int
    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """A section's text under its heading, in a document of a title; heading and title may be empty."""

    title: str
    heading: str
    text: str

    @property
    def whole(self) -> str:
        """All of it as one text."""
        return "\n\n".join(part for part in (self.title, self.heading, self.text) if part)
