"""Edited drafts at the barrier, with the real recognisers: surrogates of the draft stay, and what the expert added does not."""

import random
from collections.abc import Iterator

import pytest

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.domain import Anonymized
from services.anonymization.recognise.analyzer import Analyzer
from services.anonymization.review.domain import ReviewTerm
from services.anonymization.review.terms import HashedTerms
from services.anonymization.surrogates.surrogates import Surrogates
from services.inference.adapters.anonymization import AnonymizationClient
from tailor.errors import InvalidArgument, PermissionDenied
from tailor.rpc.server import RpcServer
from tailor.values import Labels
from tests.analyzers import load_english
from tests.barrier import MIGRATIONS, ROLES, SERVICES, channel
from tests.conftest import migrated
from tests.databases import Databases
from tests.policy_house import PolicyHouse
from tests.unit.anonymization.fakes import MemoryVault

pytestmark = pytest.mark.integration

PROMPT = "Write to Ngozi Okafor of Vanterpool Logistics BV about the audit."
ANSWER = (
    "# Audit\n\nDear Ms Okafor,\n\nthe audit of Vanterpool Logistics BV found three open points. Casimir Olszewska answers for them, "
    "by mail to casimir.olszewska@vanterpool.com or under +44 20 7946 0958.\n\nThe refund goes to DE89 3704 0044 0532 0130 00.\n\n"
    "Kind regards\n\nTamsin Quarrendon"
)
TRUE_VALUES = (
    "Wilhelmina Okonkwo-Barnes",
    "Björn Halvorsen",
    "w.barnes@hexhamfreight.com",
    "GB82 WEST 1234 5698 7654 32",
    "+44 113 496 0735",
    "Aldgate Foods Ltd",
)


class House:
    """The barrier with a vault in memory, and a draft that passed it."""

    def __init__(self, analyzer: Analyzer) -> None:
        self.vault = MemoryVault()
        self.surrogates = Surrogates(self.vault, analyzer.lexicon, b"s" * 32)
        self.terms: list[ReviewTerm] = []
        self.hashed = HashedTerms(b"key", lambda: str(len(self.terms)), lambda: self.terms)
        self.anonymizer = TextAnonymizer(analyzer, self.surrogates, terms=self.hashed)
        self.draft = self.anonymizer.anonymize((PROMPT, ANSWER)).texts

    @property
    def answer(self) -> str:
        return self.draft[1]

    def edit(self, text: str) -> Anonymized:
        return self.anonymizer.anonymize((text,), passed=self.draft)


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return load_english()


@pytest.fixture
def house(analyzer: Analyzer) -> House:
    return House(analyzer)


def surrogate_of(house: House, value: str) -> str:
    """The surrogate of a value in the draft."""
    text = house.anonymizer.anonymize((value,)).texts[0]
    assert text in "\n".join(house.draft) and text != value
    return text


def test_without_the_draft_the_barrier_would_rename_everybody(house: House) -> None:
    assert house.anonymizer.anonymize((house.answer,)).texts[0] != house.answer
    assert house.edit(house.answer).texts == (house.answer,)


def test_an_edit_that_moves_and_cuts_sentences_keeps_each_surrogate(house: House) -> None:
    *_, mail = [word for word in house.answer.split() if "@" in word]
    casimir = surrogate_of(house, "Casimir Olszewska")
    edited = (
        f"Summary: three points are open, and {casimir} ({mail}) answers for all of them. {casimir.split()[1]} replies within a week.\n\n"
        + "\n\n".join(reversed(house.answer.split("\n\n")))
    )
    issued = dict(house.vault.issued)
    result = house.edit(edited)
    assert result.texts == (edited,) and not result.findings
    # Nothing was drawn for the surrogates themselves, and an erasure of the people whom they stand for finds the edit.
    assert house.vault.issued == issued
    assert ("PERSON", casimir) in result.values and ("EMAIL_ADDRESS", mail) in result.values


@pytest.mark.parametrize("seed", range(12))
def test_true_values_never_survive_wherever_they_are_added(house: House, seed: int) -> None:
    chance = random.Random(seed)
    blocks = house.answer.split("\n\n")
    added = chance.sample(TRUE_VALUES, 3)
    for value in added:
        place = chance.randrange(1, len(blocks) + 1)
        blocks.insert(place, f"Please note that {value} must sign before Friday.")
    result = house.edit("\n\n".join(blocks)).texts[0]
    for value in added:
        assert value not in result
    for block in house.answer.split("\n\n"):
        assert block in result


@pytest.mark.parametrize("value", TRUE_VALUES)
def test_a_true_value_in_the_place_of_a_surrogate_is_replaced(house: House, value: str) -> None:
    surrogate = surrogate_of(house, "Tamsin Quarrendon")
    result = house.edit(house.answer.replace(surrogate, f"the contact is {value}."))
    assert value not in result.texts[0] and sum(result.findings.values()) == 1


def test_a_person_whose_surrogate_is_read_as_a_company_is_noted_as_a_person(house: House) -> None:
    passed = "The India Bautista Group met India Bautista."
    edited = house.anonymizer.anonymize((passed,), passed=(passed,))
    assert edited.texts == (passed,) and {("CLIENT", "India Bautista"), ("PERSON", "India Bautista")} <= edited.values


def test_an_altered_surrogate_is_a_new_value(house: House) -> None:
    casimir, tamsin = surrogate_of(house, "Casimir Olszewska"), surrogate_of(house, "Tamsin Quarrendon")
    mixed = f"{casimir.split()[0]} {tamsin.split()[1]}"
    text = f"The partner {mixed} signed the letter to the client."
    assert mixed not in house.edit(text).texts[0]
    phone = next(part for part in house.answer.split(" or under ")[1].split(".\n")[:1])
    changed = phone[:-1] + ("1" if phone[-1] != "1" else "2")
    assert changed not in house.edit(f"Please call {changed} before noon.").texts[0]


def test_text_that_a_caller_of_anonymize_calls_passed_is_not_believed_without_the_argument(house: House) -> None:
    """Another text of the same call did not pass before: its values are replaced in all texts."""
    texts = house.anonymizer.anonymize((house.answer, house.answer)).texts
    assert surrogate_of(house, "Tamsin Quarrendon") not in texts[1]


def test_a_value_that_a_review_calls_personal_goes_although_it_passed(house: House) -> None:
    assert "audit" in house.answer and "audit" in house.edit(house.answer).texts[0]
    house.terms.append(ReviewTerm(house.hashed.hash("audit"), "PERSON", 1))
    assert "audit" not in house.edit(house.answer).texts[0]


ROW_ID = f"txt_{7:032x}"


@pytest.fixture(scope="module")
def service(databases: Databases) -> Iterator[tuple[PolicyHouse, RpcServer]]:
    """Anonymization behind gRPC."""
    url = databases.create()
    with migrated(url, MIGRATIONS) as engine:
        house = PolicyHouse(engine)
        server = house.serve()
        yield house, server
        server.stop(0)
    databases.drop(url)


def test_inference_edits_over_grpc_and_an_erasure_finds_old_and_new_people(
    service: tuple[PolicyHouse, RpcServer],
) -> None:
    house, server = service
    client = AnonymizationClient(channel(server, "inference"))
    *draft, tamsin = house.current.anonymize((PROMPT, ANSWER, "Tamsin Quarrendon")).texts
    text = client.anonymize_edit(
        ROW_ID, f"{draft[1]}\n\nBjörn Halvorsen reads this for {tamsin}.", draft, Labels("wiki")
    )
    assert text.startswith(draft[1]) and "Halvorsen" not in text and text.endswith(f" reads this for {tamsin}.")
    for person in ("Tamsin Quarrendon", "Björn Halvorsen"):
        assert house.subjects.resolve(person, dry_run=True).document_ids == (ROW_ID,)


def test_no_person_and_no_other_service_may_call_a_text_passed(service: tuple[PolicyHouse, RpcServer]) -> None:
    for name in {*ROLES, *SERVICES} - {"inference"}:
        client = AnonymizationClient(channel(service[1], name))
        with pytest.raises(PermissionDenied):
            client.anonymize_edit(ROW_ID, "Björn Halvorsen", ["Björn Halvorsen"], Labels())


def test_refuses_texts_that_are_too_long_and_ids_that_cannot_be_erased(service: tuple[PolicyHouse, RpcServer]) -> None:
    client = AnonymizationClient(channel(service[1], "inference"))
    for row_id, text, passed, reason in (
        ("drf_1", "Hello.", ["Hello."], "INVALID_ROW_ID"),
        (ROW_ID, "Hello.", ["x"] * 1_025, "TEXT_TOO_LONG"),
        (ROW_ID, "x", ["x" * 1_000_000], "TEXT_TOO_LONG"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            client.anonymize_edit(row_id, text, passed, Labels())
        assert refused.value.reason == reason
