"""Documents in several languages, through detectors, mentions and surrogates."""

import pytest

from bench import anonymization_passages as passages
from bench.anonymization_languages import Find, barrier, generate, score
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.prompts import EphemeralPromptAnonymizer
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind, load_detectors
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.loading import load_section_analyzer
from services.anonymization.recognise.languages.section_analyzer import SectionAnalyzer
from services.anonymization.settings import Settings
from services.anonymization.surrogates.surrogates import Surrogates
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.values import Labels
from tests.unit.anonymization.fakes import MemoryVault

RULES = Detector("rules", DetectorKind.RULES)
GERMAN = "Sehr geehrte Frau Hinrichsen,\n\nanbei erhalten Sie den unterschriebenen Vertrag. Unser Geschäftsführer Thomas Okwuosa ruft Sie an.\n\n"
FRENCH = "Madame Guivarch a reçu le contrat. Le directeur Thomas Okwuosa vous appelle demain, et M. Delacroix confirme la date."
# The least F2 of each language, over texts that neither tuning nor the bench's report uses. The aim is 0.85.
FLOORS = {"de": 0.95, "fr": 0.95, "es": 0.95, "it": 0.95, "nl": 0.90, "pl": 0.95, "pt": 0.90}
SEED = 31_000
# The least share of mentions of which nothing is left in passages of many kinds, by half; the bench has the figures.
PASSAGE_FLOORS = {"read": 0.93, "unread": 0.82}
# A default installation reads each of these, and says so.
DOCUMENTS = {
    "en": "The contract was signed on Monday, and the invoice for March is attached to this letter.",
    "de": "Der Vertrag wurde am Montag unterschrieben, und die Rechnung für März liegt diesem Brief bei.",
    "fr": "Le contrat a été signé lundi, et la facture du mois de mars est jointe à cette lettre.",
    "es": "El contrato se firmó el lunes, y la factura de marzo se adjunta a esta carta.",
    "it": "Il contratto è stato firmato lunedì, e la fattura di marzo è allegata a questa lettera.",
    "nl": "Het contract is op maandag ondertekend, en de factuur van maart is bij deze brief gevoegd.",
    "pl": "Umowa została podpisana w poniedziałek, a faktura za marzec jest załączona do tego listu.",
    "pt": "O contrato foi assinado na segunda-feira, e a fatura de março segue em anexo a esta carta.",
}
A_FEW_WORDS = ("ok", "Hej, vad heter du?", "Привет!", "谢谢您", "Anna Kowalska", "+46 8 123 456 78", "", "Tack!")
SWEDISH = "\n\nHär kommer fakturan för mars månad, och vi har bifogat kontraktet som du bad om. Det är viktigt att du svarar Anna Lindqvist."


@pytest.fixture(scope="module")
def analyzer() -> SectionAnalyzer:
    return load_section_analyzer([RULES], load_policy(), LanguageDetector(), languages=("de", "fr"))


def anonymizer(analyzer: SectionAnalyzer) -> TextAnonymizer:
    return TextAnonymizer(analyzer, Surrogates(MemoryVault(), analyzer.lexicon, bytes(32)))


@pytest.fixture(scope="module")
def default() -> SectionAnalyzer:
    """The analyzer of an installation without settings."""
    settings = {name: Settings.model_fields[name].default for name in ("languages", "uncovered_languages")}
    is_held = settings["uncovered_languages"] == "hold"
    return load_section_analyzer(
        load_detectors(), load_policy(), LanguageDetector(), languages=settings["languages"], is_held=is_held
    )


@pytest.fixture(scope="module")
def prompts(default: SectionAnalyzer) -> EphemeralPromptAnonymizer:
    return EphemeralPromptAnonymizer(default)


@pytest.fixture(scope="module")
def find() -> Find:
    return barrier()


@pytest.mark.parametrize(("language", "floor"), FLOORS.items())
def test_each_language_is_at_its_floor(find: Find, language: str, floor: float) -> None:
    assert score(generate(language, SEED, draws=3), find)["f2"] >= floor


@pytest.mark.parametrize(("half", "floor"), PASSAGE_FLOORS.items())
def test_passages_of_many_kinds_are_at_their_floor(find: Find, half: str, floor: float) -> None:
    golds, search = passages.without_either(passages.read_passages(half), find)
    whole, total = passages.mentions(golds, search)["all"]
    assert whole / total >= floor


@pytest.mark.parametrize(("language", "text"), DOCUMENTS.items())
def test_a_default_installation_reads_eight_languages(default: SectionAnalyzer, language: str, text: str) -> None:
    analysis = default.analyze(text)
    assert [(section.language, section.rules_only) for section in analysis.sections] == [(language, False)]


def test_a_default_installation_holds_other_languages(default: SectionAnalyzer) -> None:
    with pytest.raises(InvalidArgument, match="LANGUAGE_NOT_COVERED"):
        anonymizer(default).anonymize((DOCUMENTS["en"] + SWEDISH,))


@pytest.mark.parametrize("text", A_FEW_WORDS)
def test_a_prompt_of_a_few_words_is_never_held(
    default: SectionAnalyzer, prompts: EphemeralPromptAnonymizer, text: str
) -> None:
    assert anonymizer(default).anonymize((text,)).rules_only_languages == ()
    assert len(prompts.anonymize((text,), Labels(), ()).texts) == 1


def test_a_short_prompt_has_the_language_of_the_texts_before_it(prompts: EphemeralPromptAnonymizer) -> None:
    prompt = prompts.anonymize((DOCUMENTS["de"], "Frau Brandstätter?"), Labels(), ())
    assert "Brandstätter" in prompt.pairs.values() and "Brandstätter" not in prompt.texts[1]


@pytest.mark.parametrize(
    "answer", [".ctor board. com", " l\nest fifation", "ig a hoteeet Graz.ce", "kind.5o signal:er|ive,department:"]
)
def test_an_answer_in_no_language_does_not_change_that_of_its_prompt(default: SectionAnalyzer, answer: str) -> None:
    prompt = "Write a memo for Wilhelmina Okonkwo-Barnes (wilhelmina.barnes@tattersall-foundry.example)."
    texts = anonymizer(default).anonymize((prompt, answer)).texts
    assert texts[0].startswith("Write a memo for ") and texts[0].endswith(".example).")
    assert not any(name in texts[0] for name in ("Okonkwo", "Wilhelmina", "wilhelmina", "tattersall"))


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
