"""Loading the analyzer of an installation: its languages, its detectors, and what happens to other languages."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import spacy.util

from services.anonymization.domain import Policy
from services.anonymization.recognise.analyzer import NO_MAKERS, Analyzer
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.detectors.engines import MakeRecognisers
from services.anonymization.recognise.languages.definition import CODES
from services.anonymization.recognise.languages.section_analyzer import SectionAnalyzer
from services.anonymization.recognise.languages.sections import SectionDetector
from tailor.errors import FailedPrecondition, Reason


def load_section_analyzer(
    detectors: Sequence[Detector],
    policy: Policy,
    detect: Callable[[str], str],
    *,
    languages: tuple[str, ...] = CODES,
    phone_regions: Sequence[str] = (),
    makers: Mapping[DetectorKind, MakeRecognisers] = NO_MAKERS,
    is_held: bool = True,
) -> SectionAnalyzer:
    """Load the detectors of the first language; those of the others when a text in them first comes.

    Raises FailedPrecondition (INVALID_MODEL) if a model is not installed, and (LANGUAGE_NOT_COVERED) if no detector reads a language.
    """
    for language in languages:
        _check(detectors, language)
    analyzer = SectionAnalyzer(
        lambda code: Analyzer.load(detectors, policy, code, phone_regions, makers),
        SectionDetector(detect, languages).sections,
        languages,
        policy,
        is_held,
    )
    analyzer.lexicon_of(languages[:1])
    return analyzer


def _check(detectors: Sequence[Detector], language: str) -> None:
    readers = [detector for detector in detectors if detector.reads(language)]
    if language not in CODES and all(detector.kind is DetectorKind.RULES for detector in readers):
        raise FailedPrecondition(
            Reason.LANGUAGE_NOT_COVERED,
            f"TAILOR_LANGUAGES names `{language}`, which has no rules; add a detector that reads it to the detectors file.",
        )
    for detector in readers:
        if detector.kind is DetectorKind.SPACY and not (
            spacy.util.is_package(detector.model) or Path(detector.model).is_dir()
        ):
            raise FailedPrecondition(
                Reason.INVALID_MODEL,
                f"The detector `{detector.name}` needs the spaCy model {detector.model}, which is not installed; install it or remove it.",
            )
