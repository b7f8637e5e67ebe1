"""The answer of the detectors about one text, and the languages of its sections."""

from dataclasses import dataclass

from services.anonymization.domain import Disagreement, Finding

# The language of a section that is read by rules only: no words of any language.
NO_LANGUAGE = "xx"


@dataclass(frozen=True)
class LanguageSection:
    """A stretch [start, end) of a text in one language, as a two-letter code (ISO 639-1). With `rules_only`, no detector covers it."""

    start: int
    end: int
    language: str
    rules_only: bool = False

    @property
    def reader(self) -> str:
        """The language whose detectors read the section."""
        return NO_LANGUAGE if self.rules_only else self.language


@dataclass(frozen=True)
class Analysis:
    """What the detectors found in a text, in order: overlapping findings, and the stretches on which they disagree.

    `sections` are the text's languages; empty if it was read in one language without asking.
    """

    findings: tuple[Finding, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    sections: tuple[LanguageSection, ...] = ()
