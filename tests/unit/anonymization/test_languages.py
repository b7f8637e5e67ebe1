"""What the rules find in each language: names in running text and letters, companies, numbers, dates of birth, addresses, phones."""

from functools import cache

import pytest

from services.anonymization.domain import merge
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import Detector, DetectorKind
from services.anonymization.recognise.languages.definition import CODES, load_language
from services.anonymization.settings import LANGUAGES

RULES = Detector("rules", DetectorKind.RULES)


@cache
def analyzer(language: str) -> Analyzer:
    return Analyzer.load([RULES], load_policy(), language, ())


def found(language: str, text: str) -> list[tuple[str, str]]:
    findings = merge(analyzer(language).find(text), text)
    return [(finding.entity_type, text[finding.start : finding.end]) for finding in findings]


def test_the_settings_admit_every_language_with_rules() -> None:
    assert LANGUAGES == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_language_has_a_complete_file(code: str) -> None:
    language = load_language(code)
    assert language is not None and language.phone_regions
    assert all(len(months) == 12 for months in language.months)
    assert code == "en" or all(
        (language.greetings, language.roles, language.speech, language.born, language.labels, language.numbers)
    )


@pytest.mark.parametrize(
    ("language", "text", "value"),
    [
        ("de", "Frau Dr. Brandstätter hat den Vertrag gestern geprüft.", "Brandstätter"),
        ("de", "Der Geschäftsführer Thomas Okwuosa unterschreibt morgen.", "Thomas Okwuosa"),
        ("de", "„Das lehnen wir ab“, sagte Hinrichsen am Montag.", "Hinrichsen"),
        ("de", "Liebe Katharina,\nanbei der Entwurf.", "Katharina"),
        ("de", "Der Entwurf ist fertig.\n\nMit freundlichen Grüßen\nJürgen Kowalke", "Jürgen Kowalke"),
        ("fr", "Mme Lefèvre a signé le contrat hier matin.", "Lefèvre"),
        ("fr", "Nous avons rencontré le directeur Bastien Quémeneur à Lyon.", "Bastien Quémeneur"),
        ("fr", "Cher Monsieur Delacroix,\nmerci pour votre lettre.", "Delacroix"),
        ("fr", "Le dossier est clos.\n\nCordialement,\nSolène Guivarch", "Solène Guivarch"),
        ("es", "La Sra. Etxeberria firmará el contrato mañana.", "Etxeberria"),
        ("es", "El abogado Íñigo Larrañaga presentó el recurso.", "Íñigo Larrañaga"),
        ("es", "Estimada Sra. Belmonte:\nle envío la factura.", "Belmonte"),
        ("es", "Quedo a la espera.\n\nUn cordial saludo,\nMaría Jesús Arrieta", "María Jesús Arrieta"),
        ("it", "L'avv. Brambilla ha inviato il contratto ieri.", "Brambilla"),
        ("it", "Il direttore Gianluca Santacroce firma domani.", "Gianluca Santacroce"),
        ("it", "Gentile Sig.ra Pautasso,\nle invio la fattura.", "Pautasso"),
        ("it", "Resto in attesa.\n\nCordiali saluti\nFederica Bordignon", "Federica Bordignon"),
        ("nl", "Mevrouw Van der Heijden tekent morgen het contract.", "Van der Heijden"),
        ("nl", "De advocaat Sjoerd Hoekstra diende het verzoek in.", "Sjoerd Hoekstra"),
        ("nl", "Geachte heer Wijnberg,\nhierbij de factuur.", "Wijnberg"),
        ("nl", "Wij horen graag van u.\n\nMet vriendelijke groet,\nFemke Dijkstra", "Femke Dijkstra"),
        ("pl", "Pani Wiśniewska podpisze umowę jutro.", "Wiśniewska"),
        ("pl", "Umowę przekazano panu Kowalskiemu w piątek.", "Kowalskiemu"),
        ("pl", "Szanowny Panie Zawadzki,\nprzesyłam fakturę.", "Zawadzki"),
        ("pl", "Czekam na odpowiedź.\n\nZ poważaniem\nAgnieszka Sikora", "Agnieszka Sikora"),
        ("pt", "A Sra. Vasconcelos assina o contrato amanhã.", "Vasconcelos"),
        ("pt", "O advogado Nuno Carvalhais apresentou o recurso.", "Nuno Carvalhais"),
        ("pt", "Exmo. Senhor Figueiredo,\nsegue a fatura.", "Figueiredo"),
        ("pt", "Fico a aguardar.\n\nMelhores cumprimentos,\nInês Bettencourt", "Inês Bettencourt"),
    ],
)
def test_finds_people(language: str, text: str, value: str) -> None:
    assert ("PERSON", value) in found(language, text)


@pytest.mark.parametrize(
    ("language", "text", "value"),
    [
        ("de", "Die Rechnung der Hanseborg Logistik GmbH ist offen.", "Hanseborg Logistik GmbH"),
        ("fr", "La facture de Tarvoise Distribution SARL est impayée.", "Tarvoise Distribution SARL"),
        ("es", "La factura de Talleres Urdaneta S.L. está pendiente.", "Talleres Urdaneta S.L."),
        ("it", "La fattura di Officine Bertagni S.p.A. è scaduta.", "Officine Bertagni S.p.A."),
        ("nl", "De factuur van Tammerijn & van Spreuwel staat open.", "Tammerijn & van Spreuwel"),
        ("nl", "De factuur van Hoogendijk Transport B.V. staat open.", "Hoogendijk Transport B.V."),
        ("pl", "Faktura firmy Borowiak Sp. z o.o. jest nieopłacona.", "Borowiak Sp. z o.o."),
        ("pt", "A fatura da Carvalhosa Têxteis Lda. está em atraso.", "Carvalhosa Têxteis Lda"),
    ],
)
def test_finds_companies_with_their_legal_form(language: str, text: str, value: str) -> None:
    assert any(kind == "CLIENT" and value in named for kind, named in found(language, text))


@pytest.mark.parametrize(
    ("language", "text", "kind", "value"),
    [
        ("de", "Die Steuer-ID lautet 86095742719.", "NATIONAL_ID", "86095742719"),
        ("de", "Das Urteil III ZR 123/20 ist ergangen.", "CASE_NUMBER", "III ZR 123/20"),
        ("de", "Unser Zeichen: B-2024/118-7", "CASE_NUMBER", "B-2024/118-7"),
        ("fr", "Numéro de sécurité sociale 2 95 10 99 126 111 93.", "NATIONAL_ID", "2 95 10 99 126 111 93"),
        ("fr", "La société est immatriculée sous le SIREN 552 008 443.", "NATIONAL_ID", "552 008 443"),
        ("fr", "SIRET 73282932000074", "NATIONAL_ID", "73282932000074"),
        ("fr", "L'affaire n° RG 21/04567 est renvoyée.", "CASE_NUMBER", "RG 21/04567"),
        ("es", "con DNI 54362315K y domicilio", "NATIONAL_ID", "54362315K"),
        ("es", "con NIE X2482300W y domicilio", "NATIONAL_ID", "X2482300W"),
        ("es", "con CIF J99216582 y sede", "NATIONAL_ID", "J99216582"),
        ("it", "codice fiscale RCCMNL83S18D969H, residente", "NATIONAL_ID", "RCCMNL83S18D969H"),
        ("it", "partita IVA 00743110157.", "NATIONAL_ID", "00743110157"),
        ("nl", "Zijn BSN is 111222333.", "NATIONAL_ID", "111222333"),
        ("nl", "zaaknummer C/09/654321", "CASE_NUMBER", "C/09/654321"),
        ("pl", "PESEL 44051401359, zamieszkały", "NATIONAL_ID", "44051401359"),
        ("pl", "NIP 856-734-62-15", "NATIONAL_ID", "856-734-62-15"),
        ("pl", "REGON 192598184", "NATIONAL_ID", "192598184"),
        ("pl", "sygn. akt II C 1234/21", "CASE_NUMBER", "II C 1234/21"),
        ("pt", "com o NIF 501 964 843, residente", "NATIONAL_ID", "501 964 843"),
        ("pt", "Processo n.º 1234/20.5TBLSB", "CASE_NUMBER", "1234/20.5TBLSB"),
        ("de", "geboren am 3. März 1980 in Kiel", "DATE_OF_BIRTH", "3. März 1980"),
        ("fr", "née le 14 février 1975 à Brest", "DATE_OF_BIRTH", "14 février 1975"),
        ("es", "nacida el 3 de noviembre de 1996 en Cádiz", "DATE_OF_BIRTH", "3 de noviembre de 1996"),
        ("it", "nato il 7 agosto 1969 a Bari", "DATE_OF_BIRTH", "7 agosto 1969"),
        ("nl", "geboren op 21 maart 1988 te Breda", "DATE_OF_BIRTH", "21 maart 1988"),
        ("pl", "urodzona 5 października 1990 r. w Łodzi", "DATE_OF_BIRTH", "5 października 1990"),
        ("pt", "nascido a 12 de junho de 1983 em Évora", "DATE_OF_BIRTH", "12 de junho de 1983"),
        ("de", "Anschrift:\nLindenstraße 14a\n10969 Berlin", "ADDRESS", "Lindenstraße 14a\n10969 Berlin"),
        ("fr", "domicilié 12 rue des Lilas, 75011 Paris.", "ADDRESS", "12 rue des Lilas, 75011 Paris"),
        ("es", "con domicilio en Calle de Alcalá 45, 3º B, 28014 Madrid.", "ADDRESS", "Calle de Alcalá 45, 3º B, 28014 Madrid"),
        ("it", "residente in Via Garibaldi 22, 20121 Milano.", "ADDRESS", "Via Garibaldi 22, 20121 Milano"),
        ("it", "residente in Via Verdi, 87 Appartamento 8, 75028, Tursi (MT).", "ADDRESS", "Via Verdi, 87 Appartamento 8, 75028, Tursi (MT)"),
        ("nl", "woont aan de Keizersgracht 174, 1016 DW Amsterdam.", "ADDRESS", "Keizersgracht 174, 1016 DW Amsterdam"),
        ("pl", "zamieszkały przy ul. Długiej 5/7, 00-238 Warszawa.", "ADDRESS", "ul. Długiej 5/7, 00-238 Warszawa"),
        ("pt", "residente na Rua Augusta 24, 1100-053 Lisboa.", "ADDRESS", "Rua Augusta 24, 1100-053 Lisboa"),
        ("es", "Llame al 912 345 678 por la tarde.", "PHONE_NUMBER", "912 345 678"),
        ("pl", "Proszę dzwonić pod 22 123 45 67.", "PHONE_NUMBER", "22 123 45 67"),
        ("pt", "Ligue para 213 456 789.", "PHONE_NUMBER", "213 456 789"),
    ],
)  # fmt: skip
def test_finds_values_with_a_form(language: str, text: str, kind: str, value: str) -> None:
    assert (kind, value) in found(language, text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Der Vorstand hat die Unterlagen geprüft und die Entscheidung vertagt, weil der Bericht fehlt."),
        ("fr", "Le conseil a examiné le dossier et reporté sa décision, car le rapport manque encore."),
        ("es", "El consejo examinó el informe y aplazó la decisión porque faltaba un documento."),
        ("it", "Il consiglio ha esaminato la relazione e ha rinviato la decisione perché mancava un documento."),
        ("nl", "De raad heeft het verslag besproken en de beslissing uitgesteld, omdat er een document ontbrak."),
        ("pl", "Rada omówiła sprawozdanie i odroczyła decyzję, ponieważ brakowało jednego dokumentu."),
        ("pt", "O conselho analisou o relatório e adiou a decisão, porque faltava um documento."),
    ],
)
def test_leaves_ordinary_sentences_alone(language: str, text: str) -> None:
    assert found(language, text) == []
