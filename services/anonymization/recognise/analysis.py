"""A text to be read, the answer of the detectors about it, and the languages of its sections."""

from dataclasses import dataclass

from services.anonymization.domain import NO_LABELS, Disagreement, Finding
from tailor.values import Labels

Place = tuple[int, int]

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
class TextToRead:
    """A text to be read, and what is known of it before.

    If it consists of several texts, `ends` are their ends. `listed` are findings of the operator's files, `personal` those of reviews,
    which nothing removes. No value overlaps a stretch in `never`. The labels choose the policy's rules.
    """

    text: str
    ends: tuple[int, ...] = ()
    labels: Labels = NO_LABELS
    listed: tuple[Finding, ...] = ()
    personal: tuple[Finding, ...] = ()
    never: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """What detectors found in a text, in order; the stretches on which they disagree; those that the policy allows.

    Only the answer of `recognise` has `allowed`, and findings without overlaps. `sections` are the text's languages; empty if it was
    read in one language without asking.
    """

    findings: tuple[Finding, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    sections: tuple[LanguageSection, ...] = ()
    allowed: tuple[Place, ...] = ()
