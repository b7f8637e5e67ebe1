"""Surrogates in the languages other than English: names, companies, streets and dates of the section's country."""

import pytest

from services.anonymization.recognise.languages.dictionaries import PolishWords
from services.anonymization.recognise.languages.lexicons import load_lexicon
from services.anonymization.recognise.lexicon import fold
from services.anonymization.settings import LANGUAGES
from services.anonymization.surrogates.people import People
from services.anonymization.surrogates.surrogates import HOMES, Surrogates, address_locale
from tests.unit.anonymization.fakes import MemoryVault

KEY = bytes(32)


def surrogates(language: str) -> Surrogates:
    lexicon = load_lexicon(PolishWords() if language == "pl" else frozenset(), language)
    english = load_lexicon(frozenset(), "en")
    return Surrogates(MemoryVault(), english, KEY).for_document("", ()).in_language(language, lexicon)


def test_every_language_has_a_locale() -> None:
    assert set(HOMES) == set(LANGUAGES)


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("de", "Maria Hinrichsen"),
        ("fr", "Maria Quémeneur"),
        ("es", "María Etxeberria"),
        ("it", "Maria Pautasso"),
        ("nl", "Maria Wijnberg"),
        ("pl", "Maria Wiśniewska"),
        ("pt", "Maria Vasconcelos"),
    ],
)
def test_names_are_those_of_the_sections_country(language: str, name: str) -> None:
    section = surrogates(language)
    given, family = section.person(name, "", People.of([name])).split()
    assert given in section.lexicon.given_names(HOMES[language], "f") and fold(given) != fold(name.split(maxsplit=1)[0])
    assert family in section.lexicon.family_names(HOMES[language])


def test_a_foreign_name_keeps_its_country() -> None:
    section = surrogates("pt")
    family = section.person("Heike Schäfer", "", People()).split()[1]
    assert family in section.lexicon.family_names("de_DE")


def test_polish_surnames_tell_no_gender() -> None:
    section = surrogates("pl")
    assert len(section.lexicon.family_names("pl_PL")) > 1_000 and section.lexicon.is_surname("Kowalczyk")
    assert not [name for name in section.lexicon.family_names("pl_PL") if name.endswith(("ski", "ska", "cki", "cka"))]


@pytest.mark.parametrize(
    ("language", "name", "form"),
    [
        ("de", "Hanseborg Logistik GmbH", "GmbH"),
        ("fr", "Tarvoise Distribution SARL", "SARL"),
        ("es", "Talleres Urdaneta S.L.", "S.L."),
        ("it", "Officine Bertagni S.p.A.", "S.p.A."),
        ("nl", "Hoogendijk Transport B.V.", "B.V."),
        ("pl", "Borowiak Sp. z o.o.", "Sp. z o.o."),
        ("pt", "Carvalhosa Têxteis Lda.", "Lda."),
    ],
)
def test_companies_keep_their_legal_form(language: str, name: str, form: str) -> None:
    surrogate = surrogates(language).client(name)
    assert surrogate.endswith(form) and surrogate != name


@pytest.mark.parametrize(
    ("value", "home", "locale"),
    [
        ("Lindenstraße 14a, 10969 Berlin", "de_DE", "de_DE"),
        ("12 rue des Lilas, 75011 Paris", "fr_FR", "fr_FR"),
        ("Calle de Alcalá 45, 28014 Madrid", "es_ES", "es_ES"),
        ("Via Garibaldi 22, 20121 Milano", "it_IT", "it_IT"),
        ("Keizersgracht 174, 1016 DW Amsterdam", "nl_NL", "nl_NL"),
        ("ul. Długa 5, 00-238 Warszawa", "pl_PL", "pl_PL"),
        ("Rua Augusta 24, 1100-053 Lisboa", "pt_PT", "pt_PT"),
        ("Via Garibaldi 22, 20121 Milano", "en_GB", "it_IT"),
        ("14 Acacia Road, Leeds LS1 4AP", "pl_PL", "en_GB"),
        ("Marienplatz 4", "it_IT", "de_DE"),
        ("Largo do Carmo 9", "pt_PT", "pt_PT"),
    ],
)
def test_an_address_has_the_form_of_its_country(value: str, home: str, locale: str) -> None:
    assert address_locale(value, home) == locale


@pytest.mark.parametrize(
    ("language", "value", "months"),
    [
        ("es", "3 de noviembre de 1996", "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
        ("it", "7 agosto 1969", "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"),
        ("nl", "21 april 1988", "januari februari maart april mei juni juli augustus september oktober november december"),
        ("pl", "5 października 1990", "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada grudnia"),
        ("pt", "12 de junho de 1983", "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro"),
    ],
)  # fmt: skip
def test_dates_keep_their_language(language: str, value: str, months: str) -> None:
    surrogate = surrogates(language).other("DATE_OF_BIRTH", value)
    assert surrogate != value and any(month in surrogate for month in months.split())
    assert surrogate.count(" ") == value.count(" ")
