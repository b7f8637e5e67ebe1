"""Companies by their part in a document, people in lists of people, and names in small letters, in every language."""

from functools import cache

import pytest

from services.anonymization.domain import Finding, merge
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.lexicon import Lexicon
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.recognise.recognisers.addresses import AddressRecogniser
from services.anonymization.recognise.recognisers.enumerations import EnumerationRecogniser

RULES = Detector("rules", DetectorKind.RULES)


@cache
def analyzer(language: str) -> Analyzer:
    return Analyzer.load([RULES], load_policy(), language, ())


def found(language: str, text: str, kind: str) -> list[str]:
    reader = analyzer(language)
    findings = Mentions(reader.lexicon).complete(text, merge(reader.find(text), text), [])
    return [text[finding.start : finding.end] for finding in findings if finding.entity_type == kind]


@pytest.mark.parametrize(
    ("language", "text", "company"),
    [
        ("de", "Auftraggeber: Rehwinkel Solar\nMenge 3", "Rehwinkel Solar"),
        ("fr", "Facturé à : Verrerie du Val d'Or\nTotal 12 €", "Verrerie du Val d'Or"),
        ("es", "Proveedor: Hormigones Zubiaurre\nTotal 12", "Hormigones Zubiaurre"),
        ("it", "Committente: Serramenti Brusaferro\nTotale 12", "Serramenti Brusaferro"),
        ("nl", "Opdrachtgever: Koeltechniek Noordzij\nTotaal 12", "Koeltechniek Noordzij"),
        ("pl", "Nabywca: Stolarnia Kmiecik\nRazem 12", "Stolarnia Kmiecik"),
        ("pt", "Fornecedor: Carpintaria Brandoa\nTotal 12", "Carpintaria Brandoa"),
    ],
)
def test_finds_the_parties_of_an_invoice(language: str, text: str, company: str) -> None:
    assert company in found(language, text, "CLIENT")


@pytest.mark.parametrize(
    ("language", "text", "company"),
    [
        ("de", "03/2014 - 09/2019 Buchhalterin bei Wackerle Anlagenbau, Ulm", "Wackerle Anlagenbau"),
        ("fr", "2016-2020 : comptable chez Fontvieille", "Fontvieille"),
        ("es", "2016-2020 Auxiliar en Zubiaurre", "Zubiaurre"),
        ("it", "2016-2020: contabile presso Brusaferro", "Brusaferro"),
        ("nl", "2016 - heden: planner bij Van Noordzij Transport", "Van Noordzij Transport"),
        ("pl", "2016-2020 asystentka w Kmieciex", "Kmieciex"),
        ("pt", "2016-2020: analista na Brandolux", "Brandolux"),
    ],
)
def test_finds_the_employers_of_a_cv(language: str, text: str, company: str) -> None:
    assert company in found(language, text, "CLIENT")


@pytest.mark.parametrize(
    ("language", "text", "company"),
    [
        ("de", "Der Vertrag mit der Lufthansa läuft aus.", "Lufthansa"),
        ("fr", "Nous avons écrit à Crédit Mutuel et à Decathlon.", "Decathlon"),
        ("es", "Pedimos otra oferta a Mapfre.", "Mapfre"),
        ("pl", "Umowę z PKO BP podpisano wczoraj.", "PKO BP"),
    ],
)
def test_finds_companies_that_everybody_knows(language: str, text: str, company: str) -> None:
    assert company in found(language, text, "CLIENT")


@pytest.mark.parametrize(
    ("language", "text", "names"),
    [
        ("de", "Anwesend waren Hinnerk Boysen, Ülkü Demirbas, Quistorff jun. und Frauke Ahlers.", ["Quistorff jun"]),
        ("it", "Presenti: Teresa Ansaldi, Giorgio Ferro, eredi Bruzzichelli.", ["Bruzzichelli"]),
    ],
)
def test_a_list_of_people_tells_who_its_other_entries_are(language: str, text: str, names: list[str]) -> None:
    assert set(names) <= set(found(language, text, "PERSON"))


def listed(text: str, *people: str) -> list[str]:
    """The names that the list in a text adds to the known people."""
    lexicon = Lexicon.load(frozenset("we sell apples copper wire laundry gravel to visited and present chair".split()))
    known = [Finding(text.index(name), text.index(name) + len(name), "PERSON", 0.8) for name in people]
    return [text[finding.start : finding.end] for finding in EnumerationRecogniser(lexicon).find(text, known)]


def test_notes_in_brackets_and_an_and_belong_to_the_list() -> None:
    text = "Present: Aisha Khan (chair), Tom Hartley, Quillfeather and Okonjo."
    assert listed(text, "Aisha Khan", "Tom Hartley") == ["Quillfeather", "Okonjo"]


def test_a_list_of_things_makes_nobody_a_person() -> None:
    assert listed("We sell Apples, Copper Wire, Laundry and Gravel to Anna Berg.", "Anna Berg") == []
    towns = "Anna Berg and Tom Hartley visited Leeds, Cardiff, Belfast and Paris."
    assert listed(towns, "Anna Berg", "Tom Hartley") == []


@pytest.mark.parametrize(
    ("language", "text", "name"),
    [
        ("nl", "vraag het anders aan mevrouw de haan, die weet het", "haan"),
        ("pt", "olá, o bruno diz que a filipa não vem hoje", "filipa"),
        ("fr", "appelle m. quémeneur pour la clé, merci", "quémeneur"),
        ("it", "chiedi al sig. pautasso se viene domani", "pautasso"),
        ("es", "pregunta a doña milagros por las llaves", "milagros"),
    ],
)
def test_finds_small_names_after_the_titles_of_each_language(language: str, text: str, name: str) -> None:
    assert any(name in value for value in found(language, text, "PERSON"))


def test_finds_companies_in_small_letters_by_the_word_for_their_kind() -> None:
    assert "bakkerij quistorff" in found("nl", "ik haal de taart bij bakkerij quistorff op", "CLIENT")


def test_a_surname_after_a_given_name_in_capitals_may_be_a_town() -> None:
    assert "HEIKE MINDEN" in found("de", "DIE WARE IST DA.\n\nHEIKE MINDEN\nVERSAND", "PERSON")


def test_particles_belong_to_every_mention_of_a_surname() -> None:
    text = "Íñigo de la Vega firmó el acta. De la Vega propone otra fecha."
    assert "De la Vega" in found("es", text, "PERSON")


def test_a_common_word_inside_a_name_with_a_legal_form_belongs_to_it() -> None:
    assert "Verre Service Ardennais SARL" in found("fr", "Règlement à Verre Service Ardennais SARL.", "CLIENT")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Schreib uns eine Notiz. Frau Schreib kommt morgen."),
        ("pl", "Napisz mi notatkę."),
        ("fr", "Rédige un mémo."),
        ("pt", "Escreve uma nota."),
    ],
)
def test_verbs_that_ask_for_something_are_no_mentions(language: str, text: str) -> None:
    first = text.split(maxsplit=1)[0]
    findings = Mentions(analyzer(language).lexicon).complete(text, merge(analyzer(language).find(text), text), [])
    assert not any(finding.start == 0 and text[: len(first)] == first for finding in findings)


@pytest.mark.parametrize(
    ("language", "text", "name"),
    [
        ("pt", "O meu irmão Gaudêncio levanta a encomenda.", "Gaudêncio"),
        ("nl", "Haar dochter Merel is gebeld.", "Merel"),
        ("fr", "Sa fille Perle est inscrite.", "Perle"),
        ("nl", "De huisarts Van der Veen komt morgen.", "Van der Veen"),
        ("pl", "Kierownik Wróbel rozmawiał z nim.", "Wróbel"),
    ],
)
def test_relatives_particles_and_polish_roles_announce_names_that_are_words(
    language: str, text: str, name: str
) -> None:
    assert name in found(language, text, "PERSON")


def test_a_role_that_a_letter_greets_is_nobody() -> None:
    assert found("fr", "Monsieur le Directeur,\n\nla facture est payée.", "PERSON") == []


def test_a_unit_and_a_street_are_an_address_without_a_house_number() -> None:
    text = "Please return it to Unit 4, Harebell Mews by Friday."
    lexicon = Lexicon.load(frozenset("please return it to unit by".split()))
    places = [text[finding.start : finding.end] for finding in AddressRecogniser(lexicon).find(text)]
    assert any("Unit 4, Harebell Mews" in place for place in places)


def test_the_period_of_a_job_is_no_address() -> None:
    text = "03/2014 - 09/2019 Buchhalterin bei Wackerle Anlagenbau, Ulm"
    assert AddressRecogniser(Lexicon.load(frozenset())).find(text) == []
