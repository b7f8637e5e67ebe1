"""Sections of a text in one language each, and the analyzer that reads them."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import pytest

from services.anonymization.domain import Finding, Policy
from services.anonymization.recognise import budget
from services.anonymization.recognise.analysis import LanguageSection, Recognition, TextToRead
from services.anonymization.recognise.languages.detection import LanguageDetector
from services.anonymization.recognise.languages.section_analyzer import SectionAnalyzer
from services.anonymization.recognise.languages.sections import SectionDetector
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.overlaps import Stretches
from services.anonymization.recognise.paragraphs import MAX_BATCH_CHARS, MAX_PARAGRAPH_CHARS, batches, paragraphs
from services.anonymization.recognise.ports import TextAnalyzer
from services.anonymization.recognise.recognition import recognise
from services.anonymization.recognise.technical import technicality
from services.anonymization.settings import LANGUAGES
from tailor.errors import DeadlineExceeded, InvalidArgument

POLICY = Policy("digest", {})
LETTERS = {
    "en": "Hi Tom,\n\ncould you send the invoice?",
    "de": "Sehr geehrter Herr Müller,\n\nanbei erhalten Sie den unterschriebenen Vertrag zurück.",
    "fr": "Bonjour Marie,\n\nmerci pour votre retour rapide.",
    "es": "Hola Juan:\n\nadjunto le envío la factura de marzo.",
    "it": "Ciao Luca,\n\nti mando il contratto firmato.",
    "nl": "Beste Jan,\n\nhierbij stuur ik de factuur van maart.",
    "pl": "Cześć Kasia,\n\nprzesyłam fakturę za marzec w załączniku.",
    "pt": "Olá João,\n\nsegue em anexo a fatura de março.",
}
UNCOVERED = {
    "sv": "Hej Anna, här kommer fakturan för mars månad, och vi har bifogat kontraktet som du bad om. Det är viktigt att du svarar.",
    "da": "Kære Anna, her kommer fakturaen for marts, og vi har vedlagt kontrakten som du bad om. Det er vigtigt at du svarer inden fredag.",
    "cs": "Dobrý den, v příloze zasílám podepsanou smlouvu. Prosím o potvrzení, že ji máte. Děkuji a přeji hezký den.",
    "hu": "Tisztelt Anna, mellékelten küldöm az aláírt szerződést és a számlát. Kérem, hogy erősítse meg, ha megkapta.",
    "ru": "Уважаемая Анна Ивановна, направляем вам договор.",
    "el": "Αγαπητή Άννα, σας στέλνω το συμβόλαιο που ζητήσατε.",
    "zh": "尊敬的王先生，请查收附件中的合同和发票，谢谢您的合作。",
    # Languages whose function words nobody listed.
    "sw": "Tafadhali pokea mkataba uliosainiwa pamoja na ankara ya mwezi wa Machi. Tunaomba uthibitishe kwamba umepokea nyaraka hizi kabla ya"
    " siku ya Ijumaa ili tuweze kuendelea na kazi.",
    "vi": "Kính gửi bà Anna, tôi xin gửi kèm theo hợp đồng đã ký và hóa đơn của tháng ba. Xin vui lòng xác nhận rằng bà đã nhận được các tài"
    " liệu này trước thứ sáu.",
    "cy": "Annwyl Anna, dyma'r anfoneb ar gyfer mis Mawrth, ac rydym wedi atodi'r contract y gofynnoch amdano. Mae'n bwysig eich bod yn ateb"
    " cyn dydd Gwener er mwyn i ni allu parhau â'r gwaith.",
}
# Paragraphs of which each is too short to tell.
SHORT_LINES = {
    "sv": "Hej Anna,\n\nTack för ditt mail.\n\nVi ses på fredag då.\n\nJag tar med kontraktet.\n\nHälsningar\nErik",
    "zh": "王先生您好\n\n请查收合同\n\n发票已经寄出\n\n谢谢合作\n\n再见",
}
A_FEW_WORDS = (
    "ok", "Danke!", "Summarise", "Hej, vad heter du?", "Mikä tämä on?", "Привет!", "谢谢您", "Q3 revenue?", "Anna Kowalska", "+46 8 123 456",
    "SELECT * FROM t", "Translate to Swedish: Hej Anna, tack för ditt mail.", "a", "…", "\n\n",
)  # fmt: skip
ODD_TEXTS = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. Ut enim ad"
    " minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat.",
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau upsilon phi chi psi omega one two three",
    "awk sed grep cut sort uniq head tail tee cat tac nl wc tr join paste split csplit comm diff patch make gcc ld ar nm strip objdump gdb",
    "latte mocha espresso cappuccino macchiato ristretto americano cortado affogato lungo doppio breve galao bica carajillo melange freddo",
    "  [ Ondřej Nový ]\n\n  * Drop unused Python 2 version\n\n  [ Ondřej Nový ]\n\n  * Repack source to exclude pre-build html documentation\n\n  [ Ondřej Nový ]",
    "* VAT (Идентификационен номер по ДДС, Bulgarian VAT number)\n* BIC (ISO 9362 Business identifier codes)",
    "Lindqvist, Erik\nJohansson, Åsa\nAndersson, Björn\nNyström, Märta\nHämäläinen, Väinö\nØstergård, Søren\nDvořák, Jiří\nKovács, Gábor",
)


@cache
def detector() -> SectionDetector:
    """Loaded by the first test that needs it, not by every process that collects the tests: it takes a second."""
    return SectionDetector(LanguageDetector(), LANGUAGES)


class OneWord(TextAnalyzer):
    """Finds the name of its language, once."""

    def __init__(self, language: str) -> None:
        self.policy = POLICY
        self.language = language

    @property
    def lexicon(self) -> Lexicon:
        return Lexicon.load(frozenset(), self.language)

    def lexicon_of(self, languages: Iterable[str]) -> Lexicon:
        del languages
        return self.lexicon

    def lexicon_for(self, text: str) -> Lexicon:
        del text
        return self.lexicon

    def recognise(self, question: TextToRead) -> Recognition:
        return recognise(self, question)

    def with_policy(self, policy: Policy, cache_size: int = 0) -> "OneWord":
        del policy, cache_size
        return self

    def apart(self, policy: Policy, cache_size: int = 0) -> "OneWord":
        return self.with_policy(policy, cache_size)

    def accepting_all(self) -> "OneWord":
        return self

    def analyze(self, text: str, ends: Sequence[int] = ()) -> Recognition:
        del ends
        start = text.find(self.language)
        return Recognition((Finding(start, start + 2, "PERSON", 1.0),) if start >= 0 else ())


def told(language: str) -> Callable[[str, Sequence[int]], list[LanguageSection]]:
    """Tells two sections: four characters of English, then the rest in another language."""
    return lambda text, _: [LanguageSection(0, 4, "en"), LanguageSection(4, len(text), language)]


@pytest.mark.parametrize(("language", "text"), LETTERS.items())
def test_tells_the_language_of_a_short_letter(language: str, text: str) -> None:
    assert [section.language for section in detector().sections(text)] == [language]


@pytest.mark.parametrize(("language", "text"), UNCOVERED.items())
def test_tells_that_a_language_is_not_covered(language: str, text: str) -> None:
    assert [section.language for section in detector().sections(text)] == [language]


@pytest.mark.parametrize(("language", "text"), SHORT_LINES.items())
def test_short_paragraphs_that_suggest_an_uncovered_language_are_told_together(language: str, text: str) -> None:
    assert [section.language for section in detector().sections(text)] == [language]


@pytest.mark.parametrize("text", (*A_FEW_WORDS, *ODD_TEXTS))
def test_a_few_words_lists_and_fillers_are_never_held(text: str) -> None:
    assert {section.language for section in detector().sections(text)} <= set(LANGUAGES)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "中" * 1_000_000, "word " * 200_000, "`" * 1_000_000], ids=len)
def test_a_text_of_any_kind_is_told_in_seconds(text: str) -> None:
    start = time.process_time()
    assert detector().sections(text)
    assert time.process_time() - start < 20


@pytest.mark.parametrize("text", ["", "Anna Kowalska\nPeter Schmidt\nGianni Rossi\nYuki Tanaka\nAhmed Hassan", "```\nfor i in x: f(i)\n```", "| 1 | 2 |"])  # fmt: skip
def test_a_text_that_does_not_tell_is_in_the_first_language(text: str) -> None:
    assert {section.language for section in detector().sections(text)} <= {"en"}


def test_short_paragraphs_have_the_language_of_the_one_before() -> None:
    text = "The contract was signed by both parties.\n\nDer Vertrag wurde von beiden Parteien unterschrieben.\n\nPeter Schmidt\n\nBerlin"
    sections = detector().sections(text)
    assert [section.language for section in sections] == ["en", "de"]
    assert text[sections[1].start : sections[1].end].endswith("Peter Schmidt\n\nBerlin")


@pytest.mark.parametrize(
    ("prompt", "languages"), [("Write a memo for Anna Kowalska.", ["en", "pt"]), ("Anna Kowalska", ["pt"])]
)
def test_a_prompt_has_the_language_of_its_answer_only_if_it_tells_nothing_itself(
    prompt: str, languages: list[str]
) -> None:
    answer = "O contrato foi assinado por ambas as partes, e o pagamento deve ser feito em março."
    text = f"{prompt}\n\n{answer}"
    assert [section.language for section in detector().sections(text, [len(prompt), len(text)])] == languages


def test_a_short_message_that_could_be_in_several_languages_is_in_that_of_the_one_before() -> None:
    first, second = (
        "Umowa została podpisana przez obie strony i musi być zapłacona w marcu.",
        "Anna Kowalska a Piotr Nowak",
    )
    text = f"{first}\n\n{second}"
    assert [section.language for section in detector().sections(text, [len(first), len(text)])] == ["pl"]


def test_a_short_beginning_has_the_language_of_what_follows() -> None:
    assert [s.language for s in detector().sections("Paris\n\nLe contrat a été signé par les deux parties.")] == ["fr"]


def test_sections_cover_the_whole_text() -> None:
    text = "\n\n".join(LETTERS.values())
    sections = detector().sections(text)
    assert [section.start for section in sections][1:] == [section.end for section in sections][:-1]
    assert (sections[0].start, sections[-1].end) == (0, len(text))
    assert [section.language for section in sections] == list(LETTERS)


def test_each_section_is_read_in_its_language() -> None:
    analyzer = SectionAnalyzer(OneWord, told("fr"), LANGUAGES, POLICY)
    analysis = analyzer.analyze("en, fr, en")
    assert [(finding.start, finding.end) for finding in analysis.findings] == [(0, 2), (4, 6)]
    assert [section.language for section in analysis.sections] == ["en", "fr"]


def test_a_language_that_is_not_covered_holds_the_text() -> None:
    with pytest.raises(InvalidArgument) as refused:
        SectionAnalyzer(OneWord, told("sv"), LANGUAGES, POLICY).analyze("en, sv")
    assert refused.value.reason == "LANGUAGE_NOT_COVERED"
    assert "`sv`" in refused.value.message and "TAILOR_UNCOVERED_LANGUAGES" in refused.value.message


def test_a_language_that_is_not_covered_may_pass_by_rules_only() -> None:
    analyzer = SectionAnalyzer(OneWord, told("sv"), LANGUAGES, POLICY, is_held=False)
    analysis = analyzer.analyze("en, xx")
    assert [(finding.start, finding.end) for finding in analysis.findings] == [(0, 2), (4, 6)]
    assert analysis.sections == (LanguageSection(0, 4, "en"), LanguageSection(4, 6, "sv", rules_only=True))


def test_a_text_that_is_only_searched_is_not_refused() -> None:
    analyzer = SectionAnalyzer(OneWord, told("sv"), LANGUAGES, POLICY).accepting_all()
    assert analyzer.analyze("en, sv").sections[1].rules_only


def test_languages_share_names_and_mix_words() -> None:
    analyzer = SectionAnalyzer(OneWord, told("fr"), LANGUAGES, POLICY)
    mixed = analyzer.lexicon_of(["en", "fr"])
    assert mixed.has("closings", "cordialement") and mixed.has("closings", "regards") and mixed.is_surname("Dubois")
    assert analyzer.lexicon_of(["fr"]).language == "fr" and analyzer.lexicon.language == "en"


LETTER = "Dear Ms Okafor,\n\nthank you for your letter of 3 May about the delivery. We will replace the two pallets.\n\nKind regards\n"
MANUAL = "NAME\n       tar - an archiving utility\n\nSYNOPSIS\n       tar -x [-f ARCHIVE]\n\nOPTIONS\n       -f, --file=ARCHIVE\n"
PIPELINE = "The wrapper calls `run_job(config_path)` with --dry-run; see src/jobs/runner.py and JOB_TIMEOUT in settings.toml.\n"


@pytest.mark.parametrize("text", ["Aa " * 9_000, "word" * 5_000, "A line.\n" * 3_000, LETTER])
def test_paragraphs_are_the_whole_text_in_bounded_pieces(text: str) -> None:
    pieces = list(paragraphs(text))
    assert "".join(piece for _, piece in pieces) == text
    assert all(text.startswith(piece, start) and len(piece) <= MAX_PARAGRAPH_CHARS for start, piece in pieces)


def test_a_long_paragraph_is_cut_between_words() -> None:
    assert all(piece.endswith("Aa ") for _, piece in paragraphs("Aa " * 9_000))


def test_batches_are_bounded_in_characters() -> None:
    groups = list(batches(paragraphs("A line.\n\n" * 9_000)))
    assert all(sum(len(piece) for _, piece in group) <= MAX_BATCH_CHARS for group in groups)
    assert sum(map(len, groups)) == 9_000


@pytest.mark.parametrize(
    ("place", "overlaps"), [((0, 2), False), ((2, 3), True), ((4, 6), True), ((7, 9), False), ((9, 20), True)]
)
def test_stretches_are_found_by_overlap(place: tuple[int, int], overlaps: bool) -> None:
    assert Stretches([(10, 12), (2, 5), (4, 7)]).overlap(*place) is overlaps


def test_manuals_and_code_are_technical_and_letters_are_not() -> None:
    assert technicality(LETTER) == 0
    assert technicality(MANUAL) == 1
    assert technicality(PIPELINE) > 0.5


def test_without_a_limit_nothing_is_checked() -> None:
    budget.check()


def test_a_spent_limit_ends_the_work() -> None:
    with budget.limit(-1), pytest.raises(DeadlineExceeded) as ended:
        budget.check()
    assert ended.value.reason == "TEXT_TOO_SLOW"
    budget.check()


def test_an_inner_limit_does_not_lengthen_an_outer_one() -> None:
    with budget.limit(-1), budget.limit(100), pytest.raises(DeadlineExceeded):
        budget.check()


def test_a_caller_that_has_gone_ends_the_work() -> None:
    gone = [False]
    with budget.limit(math.inf, lambda: gone[0]), budget.limit(100):
        budget.check()
        gone[0] = True
        with pytest.raises(DeadlineExceeded):
            budget.check()
