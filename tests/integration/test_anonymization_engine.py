"""The anonymizer with the real language model, on the sample corpus."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.anonymization_measures import Tally
from bench.generated import Gold, generate
from bench.gold import read_sample, read_snippets
from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import SPECIAL_CATEGORIES, move_spans
from services.anonymization.handlers import anonymize_texts
from services.anonymization.policy.policy_file import load_policy
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.recognise.detectors.definition import load_detectors
from services.anonymization.recognise.mentions import Mentions
from services.anonymization.review.domain import ReviewTerm
from services.anonymization.review.terms import HashedTerms
from services.anonymization.surrogates.surrogates import Surrogates
from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.adapters.drafts import DraftBucket
from services.inference.definitions import Definitions
from services.inference.domain import ChatMessage, Draft, PromptRecord, ServedModel, Transcript
from services.inference.draft_texts import DraftTextStore
from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.storage.memory import MemoryStore
from tailor.values import Span, SpanKind
from tests.analyzers import WITH_A_FORM, load_english
from tests.unit.anonymization.fakes import MemoryVault
from tests.unit.inference.fakes import Published

pytestmark = pytest.mark.integration

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample"
# A small model misses names without context. Measured; raise these bounds when it improves, never lower them.
LEAST_RECALL = 0.97
LEAST_PRECISION = 0.96
WHOLE_TYPES = {
    "EMAIL_ADDRESS", "IBAN", "CREDIT_CARD", "NATIONAL_ID", "IP_ADDRESS", "DATE_OF_BIRTH", "SECRET", "COORDINATES",
}  # fmt: skip


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


def make_anonymizer(analyzer: Analyzer, vault: MemoryVault) -> TextAnonymizer:
    return TextAnonymizer(analyzer, Surrogates(vault, analyzer.lexicon, b"s" * 32))


def measure(analyzer: Analyzer, golds: list[Gold]) -> dict[str, Any]:
    mentions, tally = Mentions(analyzer.lexicon), Tally()
    for gold in golds:
        # The lists were marked before special categories were found. `test_named_policies_engine.py` measures those.
        found = [finding for finding in analyzer.find(gold.text) if finding.entity_type not in SPECIAL_CATEGORIES]
        findings = mentions.complete(gold.text, found, analyzer.policy.find_allowed(gold.text))
        tally.add(gold, [(finding.start, finding.end) for finding in findings])
    return tally.figures()


def test_what_a_review_decided_counts_before_the_recognisers(analyzer: Analyzer) -> None:
    text = "The old wombat signed it. Vanterpool Logistics BV pays."
    vault = MemoryVault()
    before = make_anonymizer(analyzer, vault).anonymize((text,)).texts[0]
    assert "wombat" in before and "Vanterpool" not in before
    table: list[ReviewTerm] = []
    terms = HashedTerms(b"key", lambda: str(len(table)), lambda: table)
    anonymizer = TextAnonymizer(analyzer, Surrogates(vault, analyzer.lexicon, b"s" * 32), terms=terms)
    assert anonymizer.anonymize((text,)).texts[0] == before
    table += [ReviewTerm(terms.hash("wombat"), "PERSON", 1), ReviewTerm(terms.hash("Vanterpool Logistics BV"), "", 3)]
    after = anonymizer.anonymize((text,)).texts[0]
    assert "wombat" not in after and "Vanterpool Logistics BV pays" in after


def test_every_mention_of_a_person_has_the_same_surrogate(analyzer: Analyzer) -> None:
    anonymizer = make_anonymizer(analyzer, MemoryVault())
    text = "Ngozi Okafor signed for Vanterpool Logistics BV.\n\nMs Okafor (n.okafor@vanterpool.example) and N. Okafor agree; Ngozi waits."
    result = anonymizer.anonymize(("Ask Ms Okafor.", text))
    assert not any(
        part in whole for whole in result.texts for part in ("Okafor", "okafor", "Ngozi", "Vanterpool", "vanterpool")
    )
    given, family = result.texts[1].split()[:2]
    assert result.texts[0] == f"Ask Ms {family}."
    assert f"Ms {family} (" in result.texts[1] and f"{given[0]}. {family} agree; {given} waits." in result.texts[1]
    assert result.findings["PERSON"] == 5 and result.findings["EMAIL_ADDRESS"] == 1


@pytest.mark.parametrize("name", ["Wilhelmina Okonkwo-Barnes", "Tamsin Quarrendon", "Casimir Olszewska"])
@pytest.mark.parametrize(
    "answer", ["`retention.ms` --pin NO_MODEL_READY", "| max_tokens=32 |\n\n```sh\nrun --all /etc/x.conf\n```"]
)
def test_code_in_an_answer_hides_no_name_in_its_prompt_and_in_the_answer(
    analyzer: Analyzer, name: str, answer: str
) -> None:
    anonymizer = make_anonymizer(analyzer, MemoryVault())
    texts = anonymizer.anonymize((f"Write memo 1 for {name}.", f"{name}: {answer}")).texts
    assert not any(name in text for text in texts)
    assert anonymizer.anonymize((f"Write to {name}. {answer}",)).texts[0].count(name) == 0


def test_a_verb_that_is_written_like_a_name_in_the_answer_stays_in_the_prompt(analyzer: Analyzer) -> None:
    prompt, answer = "Write a memo for Wilhelmina Okonkwo-Barnes.", "I asked Anna Write. Write said that it is done."
    texts = make_anonymizer(analyzer, MemoryVault()).anonymize((prompt, answer)).texts
    assert texts[0].startswith("Write a memo for ") and "Okonkwo" not in texts[0]
    assert "Write" not in texts[1] and "Anna" not in texts[1]


def test_spans_move_with_the_surrogates_of_their_text(analyzer: Analyzer) -> None:
    prompt = "Ask Ms Ngozi Okafor of Vanterpool Logistics BV, please."
    text = "# Position\n\nNgozi Okafor signed for Vanterpool Logistics BV.\n\n# Remedy\n\nMs Okafor acts by then.\n"
    page = text.index("# Remedy")
    result = make_anonymizer(analyzer, MemoryVault()).anonymize((prompt, text))
    (first, second) = move_spans(
        [Span(SpanKind.PAGE, 1, 0, page - 2), Span(SpanKind.PAGE, 2, page, len(text) - 1)], result.changes[1]
    )
    after = result.texts[1]
    assert after[first.start : first.end].startswith("# Position") and after[first.end - 1 : first.end + 2] == ".\n\n"
    assert after[second.start : second.end].startswith("# Remedy\n\nMs ")
    assert after[second.end :] == "\n"


def test_two_anonymizers_over_one_vault_agree(analyzer: Analyzer) -> None:
    vault = MemoryVault()
    text = "Dr Sarah Jenkins lives at 41 Quarry Lane, Tarnbridge TB4 2QN and pays from GB33BUKB20201555555555."
    assert make_anonymizer(analyzer, vault).anonymize((text,)) == make_anonymizer(analyzer, vault).anonymize((text,))


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
    assert make_anonymizer(analyzer, MemoryVault()).anonymize((text,)).texts == (text,)


def test_recall_and_precision_on_the_sample(analyzer: Analyzer) -> None:
    figures = measure(analyzer, read_sample())
    assert figures["recall"] >= LEAST_RECALL
    assert figures["precision"] >= LEAST_PRECISION


@pytest.mark.parametrize(
    ("snippets", "least_precision", "least_recall"), [("tuned", 0.97, 0.97), ("unseen", 0.93, 0.95)]
)
def test_recall_and_precision_on_hand_written_snippets(
    analyzer: Analyzer, snippets: str, least_precision: float, least_recall: float
) -> None:
    figures = measure(analyzer, [gold for gold in read_snippets(snippets) if gold.language == "en"])
    assert figures["precision"] >= least_precision
    assert figures["recall"] >= least_recall


def test_german_without_a_model() -> None:
    analyzer = Analyzer.load(load_detectors(), load_policy(), "de")
    golds = [gold for name in ("tuned", "unseen") for gold in read_snippets(name) if gold.language == "de"]
    figures = measure(analyzer, golds)
    assert figures["precision"] >= LEAST_PRECISION and figures["recall"] >= LEAST_RECALL


def test_values_with_a_form_are_found_whole(analyzer: Analyzer) -> None:
    golds = [gold for gold in generate(1, seed=4_100) if gold.language == "en"][::4]
    recall = measure(analyzer, golds)["recall_by_type"]
    assert {kind: recall[kind] for kind in WHOLE_TYPES if kind in recall and recall[kind] < 1} == {}
    assert len(WHOLE_TYPES & set(recall)) >= 5


def test_no_value_with_a_form_survives_in_the_sample(analyzer: Analyzer) -> None:
    anonymizer = make_anonymizer(analyzer, MemoryVault())
    gold = json.loads((SAMPLE / "gold.json").read_text(encoding="utf-8"))["documents"]
    for name, entries in gold.items():
        if name.endswith((".md", ".txt")):
            text = anonymizer.anonymize(((SAMPLE / name).read_text(encoding="utf-8"),)).texts[0]
            assert [entry for entry in entries if entry["type"] in WITH_A_FORM and entry["value"] in text] == [], name


class DirectChannel:
    """A channel that calls the anonymizer directly."""

    def __init__(self, anonymizer: TextAnonymizer) -> None:
        self.anonymizer = anonymizer

    def unary_unary(self, method: str, *_: object, **__: object) -> Any:

        def call(request: anonymization_pb2.AnonymizeRequest, timeout: float) -> anonymization_pb2.AnonymizeResponse:
            del timeout
            result = anonymize_texts(self.anonymizer, tuple(request.texts))
            return anonymization_pb2.AnonymizeResponse(texts=result.texts)

        return call if method.endswith("/Anonymize") else lambda *_, **__: None

    stream_unary = unary_unary


def test_a_stored_draft_has_nothing_personal_and_the_surrogates_of_the_corpus(analyzer: Analyzer) -> None:
    anonymizer, store, published = make_anonymizer(analyzer, MemoryVault()), MemoryStore(), Published()
    definitions = Definitions()
    definitions.define("reports", keep_drafts=True)
    prompt = "Write to Ms Ngozi Okafor (n.okafor@vanterpool.example, +44 20 7946 0018) about IBAN GB82 WEST 1234 5698 7654 32."
    answer = "Dear Ms Okafor,\n\nthe account of Vanterpool Logistics BV was closed.\n\nNgozi, please confirm."
    messages = (ChatMessage("user", prompt), ChatMessage("assistant", "To whom?"), ChatMessage("user", "Ms Okafor."))
    client = AnonymizationClient(DirectChannel(anonymizer))  # type: ignore[arg-type]
    texts = DraftTextStore(definitions, client, DraftBucket(store).put, published.draft)
    draft = Draft("drf_1", ServedModel("reports", 1), "key_1", PromptRecord("p"), "a", 1, 1, "stop", 0.1, 0.2)
    texts.keep(draft, Transcript(messages, answer))
    published.wait_for_draft(texts.run)
    ((bucket, _), data), *others = store.objects.items()
    assert (bucket, others) == ("drafts", [])
    text = data.decode()
    assert not any(raw in text for raw in ("Okafor", "okafor", "Ngozi", "7946", "WEST", "Vanterpool Logistics"))
    value = json.loads(text)
    assert [message["role"] for message in value["messages"]] == ["user", "assistant", "user"]
    assert value["messages"][1]["content"] == "To whom?"
    # The corpus has the same surrogate in the person's place.
    corpus = anonymizer.anonymize(("Ms Ngozi Okafor signed.",)).texts[0]
    surrogate = corpus.removeprefix("Ms ").removesuffix(" signed.")
    assert surrogate in value["messages"][0]["content"]
    assert surrogate.split()[-1] in value["messages"][2]["content"] and surrogate.split()[-1] in value["answer"]
