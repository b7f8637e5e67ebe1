"""Documents in several languages, through detectors, mentions and surrogates."""

import pytest

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.languages.section_analyzer import SectionAnalyzer
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import FailedPrecondition, InvalidArgument
from tests.unit.anonymization.fakes import MemoryVault

RULES = Detector("rules", DetectorKind.RULES)
GERMAN = "Sehr geehrte Frau Hinrichsen,\n\nanbei erhalten Sie den unterschriebenen Vertrag. Unser Geschäftsführer Thomas Okwuosa ruft Sie an.\n\n"
FRENCH = "Madame Guivarch a reçu le contrat. Le directeur Thomas Okwuosa vous appelle demain, et M. Delacroix confirme la date."
SWEDISH = "\n\nHär kommer fakturan för mars månad, och vi har bifogat kontraktet som du bad om. Det är viktigt att du svarar Anna Lindqvist."


@pytest.fixture(scope="module")
def analyzer() -> SectionAnalyzer:
    return load_section_analyzer([RULES], load_policy(), LanguageDetector(), languages=("de", "fr"))


def anonymizer(analyzer: SectionAnalyzer) -> TextAnonymizer:
    return TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, bytes(32)))


def test_a_mixed_document_is_read_in_each_of_its_languages(analyzer: SectionAnalyzer) -> None:
    result = anonymizer(analyzer).anonymize((GERMAN + FRENCH,))
    assert not [name for name in ("Hinrichsen", "Okwuosa", "Guivarch", "Delacroix") if name in result.texts[0]]
    assert (
        "anbei erhalten Sie den unterschriebenen Vertrag" in result.texts[0] and "confirme la date" in result.texts[0]
    )
    german, french = result.texts[0].split("Geschäftsführer ")[1], result.texts[0].split("Le directeur ")[1]
    assert german.split()[:2] == french.split()[:2]


def test_a_document_in_a_language_without_rules_is_refused(analyzer: SectionAnalyzer) -> None:
    with pytest.raises(InvalidArgument) as refused:
        anonymizer(analyzer).anonymize((GERMAN + SWEDISH,))
    assert refused.value.reason == "LANGUAGE_NOT_COVERED" and "`sv`" in refused.value.message


def test_it_may_pass_by_rules_only_and_says_so(analyzer: SectionAnalyzer) -> None:
    result = anonymizer(analyzer.accepting_all()).anonymize((GERMAN + SWEDISH,))
    assert result.rules_only_languages == ("sv",) and "Lindqvist" not in result.texts[0]


def test_a_language_without_any_detector_cannot_be_admitted() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        load_section_analyzer([RULES], load_policy(), LanguageDetector(), languages=("de", "sv"))
    assert refused.value.reason == "LANGUAGE_NOT_COVERED" and "`sv`" in refused.value.message
