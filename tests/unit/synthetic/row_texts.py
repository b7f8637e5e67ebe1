"""Documents of the shapes that companies have, written for tests, and a counter of tokens."""

from collections.abc import Sequence

from services.ingestion.spans import find_sections
from services.synthetic.domain import Document, Kind, Specialist, Text
from services.synthetic.ports import TokenCounter
from tailor.storage.ref import Ref
from tailor.values import Labels, OwnTask, RowPolicy, Span

HEADINGS = {
    "en": ("Position", "Findings", "Assessment", "Remedy", "Costs", "Next steps"),
    "de": ("Sachverhalt", "Feststellungen", "Würdigung", "Empfehlung", "Kosten", "Nächste Schritte"),
    "fr": ("Situation", "Constats", "Appréciation", "Mesures", "Coûts", "Prochaines étapes"),
    "es": ("Situación", "Hallazgos", "Valoración", "Medidas", "Costes", "Próximos pasos"),
}
TITLES = {
    "en": "Engagement report: key custody in the branches",
    "de": "Prüfbericht: Kassenführung in den Filialen",
    "fr": "Rapport de mission : tenue des caisses en agence",
    "es": "Informe de revisión: custodia de llaves en las sucursales",
}
SENTENCES = {
    "en": (
        "On {day} March 2025 the team counted the keys in Gannet Tower and found that {count} of them were missing.",
        "Lotte Friedrichsen of Eastmere Homes confirmed this in a letter that reached us {count} days later.",
        "The register is kept by hand, and nobody checks it against the drawer in the evening.",
        "A new register would cost €{amount},400 a year, which the branch can pay from its own budget.",
        "According to section 4.{day} of the custody manual [12], two people must sign for every key.",
        "We saw no sign of bad faith, only of habits that have grown over many years.",
        "The rate of errors rose from {day}.5% to {count}% after the move to Bristol.",
        "In our view the branch should name one person who answers for the register.",
    ),
    "de": (
        "Am {day}. März 2025 zählte das Team die Kassen in Bremen und stellte eine Differenz von {amount}.250,40 EUR fest.",
        "Frau Lotte Friedrichsen von der Nordhafen GmbH bestätigte dies {count} Tage später schriftlich.",
        "Das Kassenbuch wird von Hand geführt, und am Abend vergleicht es niemand mit dem Bestand.",
        "Ein neues Verfahren kostet {amount}.400 € im Jahr und kann aus dem laufenden Budget bezahlt werden.",
        "Nach § {day} Abs. 2 der Kassenordnung müssen zwei Personen jede Entnahme abzeichnen.",
        "Hinweise auf Vorsatz haben wir nicht gefunden, wohl aber auf eingeschliffene Gewohnheiten.",
        "Die Fehlerquote stieg nach dem Umzug von {day},5 % auf {count} %.",
        "Aus unserer Sicht sollte die Filiale eine Person benennen, die für das Kassenbuch einsteht.",
    ),
    "fr": (
        "Le {day} mars 2025, l'équipe a compté les caisses à Lyon et a constaté un écart de {amount} 250,40 euros.",
        "Madame Camille Fournier, de la société Rivage Conseil, l'a confirmé par écrit {count} jours plus tard.",
        "Le registre est tenu à la main, et personne ne le compare le soir avec le contenu du tiroir.",
        "Un nouveau registre coûterait {amount} 400 € par an, ce que l'agence peut payer sur son budget.",
        "Selon l'article {day} du règlement de caisse, deux personnes doivent signer chaque retrait.",
        "Nous n'avons vu aucun signe de mauvaise foi, seulement des habitudes prises avec le temps.",
        "Le taux d'erreur est passé de {day},5 % à {count} % après le déménagement.",
        "À notre avis, l'agence devrait désigner une personne qui réponde du registre.",
    ),
    "es": (
        "El {day} de marzo de 2025 el equipo contó las llaves en Sevilla y halló que faltaban {count} de ellas.",
        "Doña Carmen Robledo, de la empresa Puerto Norte, lo confirmó por escrito {count} días después.",
        "El registro se lleva a mano, y nadie lo compara por la noche con el contenido del cajón.",
        "Un registro nuevo costaría {amount}.400 euros al año, que la sucursal puede pagar de su presupuesto.",
        "Según el artículo {day} del manual de custodia, dos personas deben firmar cada retirada.",
        "No vimos ninguna señal de mala fe, solo costumbres adquiridas con los años.",
        "La tasa de errores subió del {day},5 % al {count} % tras el traslado.",
        "A nuestro juicio, la sucursal debería nombrar a una persona que responda del registro.",
    ),
}
MAIL = (
    "# Plot maps\n\nFrom: Ann Lee <ann@coop.example>\nTo: Bo Ray <bo@farm.example>\nDate: 14 November 2025\n\n"
    "Dear Bo,\n\nplease ask the cooperative for fresh maps of 38 farm plots, since 31 of them lie in the sea. The surveyor, "
    "Mr. Igwe, wants them before 2 December 2025, and the bank will not release the £12,400 without them.\n\n"
    "Kind regards\nAnn Lee\n\nOn 12 November 2025, Bo Ray wrote:\n> Which plots do you mean?\n> I have only the list of 2019.\n"
)
MINUTES = (
    "# Minutes of the works council, 3 June 2025\n\nPresent: Petra Lang, Omar Haddad, Jo Weiss\n\n## Shift plan\n\n"
    "- The night shift starts at 22:00 from 1 July 2025.\n- Omar Haddad asks the canteen to open until 23:30.\n"
    "- Two votes against, seven in favour.\n\n## Lockers\n\n1. Order 40 lockers from Stahlwerk Kern at €95 each.\n"
    "2. Petra Lang tells the staff by 10 June.\n3. The old ones go to the depot in Leeds.\n"
)
SHEET = (
    "## Branches\n\n| Branch | Manager | Keys | Missing |\n| --- | --- | --- | --- |\n"
    + "\n".join(f"| Branch {n} in Leeds | Ann Lee {n} | {n * 13} | {n % 7} |" for n in range(1, 60))
    + "\n\n## Totals\n\n| Quarter | Sum |\n| --- | --- |\n| Q1 2025 | 17,640 |\n| Q2 2025 | 18,004 |\n"
)
HTML = (
    "The depot opens at 6:00 on weekdays. Drivers report at gate 3 and show the pass that Carla Mott issued.\n\n"
    "Loads over 7.5 tonnes go to the northern ramp. The ramp was renewed in 2023 and holds two lorries at once.\n\n"
    "A driver without an appointment waits in the yard. Waiting is free for the first 45 minutes and costs £20 an hour after that.\n"
)
HARD_BREAKS = (
    "The review covered the twelve months to 31 December 2024 and was done on site\n"
    "in Hull by two auditors of the group, who read 240 vouchers and spoke with the\n"
    "head of purchasing, Miriam Stokes, on three days of the first week.\n"
    "Orders below £5,000 need one signature, orders above it need two, and in 17 of\n"
    "the 240 cases the second signature was missing when the goods had already come.\n"
    "The committee should see a list of such cases every quarter, beginning with the\n"
    "second quarter of 2025, so that the habit does not grow back unseen.\n"
)
CJK = (
    "二〇二五年三月十四日、監査チームは東京支店の鍵を数え、" * 30
    + "17本が不足していることを確認した。"
    + "台帳は手書きで管理されている。" * 60
)
NO_SENTENCES = " ".join(f"item {n} shelf {n % 9} row {n % 5}" for n in range(900))
NOTE = "Please return the two spare keys of the archive to Ann Lee before Friday, 9 May 2025."


class WordCounter(TokenCounter):
    """Two tokens for each word, and one for every two characters of a text without blanks."""

    digest = "words"
    context_tokens = 2048

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        return 6 * (len(contents) + has_system)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [sum(max(2, len(word) // 2) for word in text.split()) for text in texts]

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        return True


def paragraphs(language: str, words: int, seed: int) -> str:
    """At least this number of words, in paragraphs of three sentences."""
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < words:
        number = seed * 31 + len(sentences)
        pattern = SENTENCES[language][number % 8]
        sentences.append(pattern.format(day=number % 27 + 2, count=number % 83 + 11, amount=number % 9 + 1))
    return "\n\n".join(" ".join(sentences[place : place + 3]) for place in range(0, len(sentences), 3))


def report(language: str = "en", words: int = 200) -> str:
    """A report of six sections of about this number of words."""
    sections = (
        f"## {heading}\n\n{paragraphs(language, words, number)}" for number, heading in enumerate(HEADINGS[language])
    )
    return "\n\n".join([f"# {TITLES[language]}", *sections])


def manual() -> str:
    """A manual of about 40,000 words in 80 chapters."""
    return "# Custody manual\n\n" + "\n\n".join(
        f"## {number}. Chapter on drawer {number}\n\n{paragraphs('en', 500, number)}" for number in range(1, 81)
    )


FIGURES = "\n".join(
    [
        "| Date | Opening | Closing | Volume | Id |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| 2025-{number // 28 + 1:02d}-{number % 28 + 1:02d} | {number % 7}.50 | {number % 9}.25 | {number * 37} | {number % 5} |"
            for number in range(140)
        ),
    ]
)

ALL = {
    "report of 200 words": ("en", report("en", 200)),
    "report of 300 words": ("en", report("en", 300)),
    "report of 600 words": ("en", report("en", 600)),
    "German report": ("de", report("de")),
    "French report": ("fr", report("fr")),
    "Spanish report": ("es", report("es")),
    "mail": ("en", MAIL),
    "minutes": ("en", MINUTES),
    "sheet": ("en", SHEET),
    "table of figures": ("en", FIGURES),
    "page with only a title": ("en", HTML),
    "hard line breaks": ("en", HARD_BREAKS),
    "note": ("en", NOTE),
    "without blanks": ("ja", CJK),
    "without ends of sentences": ("en", NO_SENTENCES),
    "unknown language": ("", report("es", 60)),
}


def make_document(
    text: str, language: str = "en", *, kind: Kind = Kind.DOCUMENT, spans: tuple[Span, ...] = ()
) -> Document:
    """A document with the sections that ingestion finds in its text."""
    sections = tuple(sorted([*spans, *find_sections(text)], key=lambda span: (span.start, -span.end)))
    ref = Ref("s3://corpus/x", "0" * 64, 1)
    return Document("doc_1", 1, "d", kind, Labels(), ref, language=language, spans=sections)


def plain(text: str) -> Text:
    """A text without a prompt."""
    return Text(None, text)


def specialist(
    tokens: int = 0,
    rows: int = 0,
    tasks: tuple[str, ...] = (),
    own: tuple[OwnTask, ...] = (),
    *,
    answer_percent: int = 0,
) -> Specialist:
    """A specialist with limits on its rows."""
    policy = RowPolicy(
        max_row_tokens=tokens,
        max_rows_per_document=rows,
        max_answer_percent=answer_percent,
        tasks=tasks,
        own_tasks=own,
    )
    return Specialist("reports", 1, "smollm2-135m-instruct", "lora", system_prompt="Write as we do.", rows=policy)
