"""The dry run, re-identification and stable surrogates, with the real language model and a real vault."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from services.anonymization.anonymizer import TextAnonymizer
from services.anonymization.policy.policy_file import load_policy, parse_policy
from services.anonymization.recognise.lexicon import fold
from tailor.api.anonymization.v1 import anonymization_pb2, anonymization_pb2_grpc
from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, PermissionDenied
from tailor.rpc.channel import wire_errors
from tests.analyzers import load_english
from tests.barrier import MIGRATIONS, channel
from tests.conftest import migrated
from tests.policy_house import PolicyHouse

pytestmark = pytest.mark.integration

MEMO = "Ngozi Okafor signed for Vanterpool Logistics BV on 3 March 2025.\n\nMs Okafor (n.okafor@vanterpool.com) pays £48,250."
POLICY = """
[types]
PERSON = "surrogate"
CLIENT = "mask"
EMAIL_ADDRESS = "mask"
DATE_TIME = "keep"
MONEY = "keep"
CONTRACT = "surrogate"
LOCATION = "keep"
NRP = "keep"
[[rules]]
labels = { department = "people" }
types = { DATE_TIME = "generalise", MONEY = "generalise", PERSON = "mask" }
[generalise]
DATE_TIME = "month"
[codes]
CONTRACT = ['\\bK-\\d{4}\\b']
[deny]
CLIENT = ["the blue house"]
[allow]
terms = ["Ngozi Okafor"]
"""


class World(PolicyHouse):
    """The service on a port."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.server = self.serve()

    def stub(self, role: str) -> anonymization_pb2_grpc.AnonymizationServiceStub:
        return anonymization_pb2_grpc.AnonymizationServiceStub(channel(self.server, role))

    def preview(
        self, content: str, policy: str = "", department: str = "", role: str = "ENGINEER"
    ) -> anonymization_pb2.PreviewAnonymizationResponse:
        request = anonymization_pb2.PreviewAnonymizationRequest(
            text=content, policy=policy, labels=common_pb2.Labels(department=department)
        )
        with wire_errors("anonymization"):
            return self.stub(role).PreviewAnonymization(request, timeout=120)

    def rows(self) -> list[int]:
        tables = ("entries", "audit", "occurrences", "suppressions", "processed")
        with self.engine.connect() as connection:
            return [connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine)
        yield world
        world.server.stop(0)


def test_a_dry_run_shows_the_real_result_and_stores_nothing(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    shown = world.preview(MEMO)
    assert world.rows() == [0, 0, 0, 0, 0]
    assert world.preview(MEMO) == shown
    real = world.current.anonymize((MEMO,))
    assert (shown.text, dict(shown.findings)) == (real.texts[0], dict(real.findings))
    assert shown.findings["PERSON"] == 2 and shown.policy_digest == load_policy().digest
    values = [MEMO[change.start : change.end] for change in shown.changes]
    assert values == ["Ngozi Okafor", "Vanterpool Logistics BV", "Okafor", "n.okafor@vanterpool.com"]
    assert not any(word in "".join(capfd.readouterr()) for word in ("Okafor", "Vanterpool"))


def test_a_known_value_shows_its_issued_surrogate(world: World) -> None:
    world.vault.issue("PERSON_FAMILY", "okafor", "Okafor", lambda n: f"Zzyzx{n}")
    before = world.rows()
    assert "Zzyzx0 signed for" in world.preview(MEMO).text
    assert world.rows() == before


def test_a_policy_is_tried_with_its_rules_lists_and_codes(world: World) -> None:
    content = MEMO.replace("Ngozi", "Sarah") + " Contract K-4711 of the blue house; Ngozi Okafor waits."
    plain = world.preview(content, POLICY)
    assert plain.policy_digest == hashlib.sha256(POLICY.encode()).hexdigest()
    assert "on 3 March 2025" in plain.text and "pays £48,250." in plain.text
    assert (
        "K-4711" not in plain.text
        and "of [CLIENT]; Ngozi Okafor waits." in plain.text
        and "([EMAIL_ADDRESS])" in plain.text
    )
    labelled = world.preview(content, POLICY, department="people")
    assert "on March 2025" in labelled.text and "pays £10,000 to £100,000." in labelled.text
    assert labelled.text.startswith("[PERSON] signed for [CLIENT]")
    kinds = {change.entity_type: change.action for change in labelled.changes}
    assert (
        kinds["DATE_TIME"] == anonymization_pb2.ACTION_GENERALISE and kinds["PERSON"] == anonymization_pb2.ACTION_MASK
    )
    assert kinds["CONTRACT"] == anonymization_pb2.ACTION_SURROGATE


def test_rejects_a_wrong_policy_field_by_field(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        world.preview(MEMO, '[types]\nPERSON = "hide"\n[generalise]\nAGE = 1\n')
    assert refused.value.reason == "INVALID_POLICY"
    assert set(refused.value.field_violations) == {"types.PERSON", "generalise.AGE"}


@pytest.mark.slow
def test_rejects_a_pattern_that_does_not_end_without_delaying_others(world: World) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(world.preview, "a" * 50_000 + "!", "[types]\n[codes]\nCONTRACT = ['(a|a)+$']\n")
        assert world.preview("Hello.").text == "Hello."
        assert not slow.done()
        with pytest.raises(InvalidArgument) as refused:
            slow.result(timeout=120)
    assert "takes over" in refused.value.field_violations["codes.CONTRACT[0]"]


def test_rejects_requests_that_are_too_long(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        world.preview("x" * 200_001, "#" * 65_537)
    assert set(refused.value.field_violations) == {"text", "policy"}


def test_only_engineers_operators_and_data_protection_may_preview(world: World) -> None:
    for role in ("CALLER", "EXPERT"):
        with pytest.raises(PermissionDenied):
            world.preview("Hello.", role=role)
    assert {world.preview("Hello.", role=role).text for role in ("ENGINEER", "OPERATOR", "DATA_PROTECTION")} == {
        "Hello."
    }


def test_a_suppressed_person_is_masked_in_a_dry_run(world: World) -> None:
    world.current.anonymize((MEMO,))
    request = anonymization_pb2.ResolveSubjectRequest(subject="Ngozi Okafor")
    world.stub("DATA_PROTECTION").ResolveSubject(request, timeout=60)
    assert world.preview(MEMO).text.startswith("[PERSON] signed for ")


def test_reidentification_is_for_data_protection_and_audited(world: World) -> None:
    shown = world.current.anonymize((MEMO,)).texts[0]
    name = " ".join(shown.split()[:2])
    request = anonymization_pb2.ReidentifyRequest(entity_type="PERSON", surrogate=name, purpose="court order 12")
    with pytest.raises(PermissionDenied), wire_errors("anonymization"):
        world.stub("OPERATOR").Reidentify(request, timeout=60)
    assert world.stub("DATA_PROTECTION").Reidentify(request, timeout=60).value == "Ngozi Okafor"
    request.surrogate = name.upper()
    assert world.stub("DATA_PROTECTION").Reidentify(request, timeout=60).value == "Ngozi Okafor"
    assert world.audited() == [
        ("key_data_protection", "PERSON", name, "court order 12"),
        ("key_data_protection", "PERSON", name.upper(), "court order 12"),
    ]


def test_a_person_has_one_surrogate_across_documents_replicas_and_spellings(world: World) -> None:
    first = world.current.anonymize(("Sarah Jenkins wrote the report. It was SARAH JENKINS who signed it.",)).texts[0]
    given, family = first.split()[:2]
    assert first == f"{given} {family} wrote the report. It was {given.upper()} {family.upper()} who signed it."
    replica = PolicyHouse(world.engine)
    second = replica.current.anonymize(
        ("Please call Ms. Jenkins, or write to sarah.jenkins@meridianfoods.com.",)
    ).texts[0]
    assert second.startswith(f"Please call Ms. {family}, or write to {fold(given)}.{fold(family)}@")


def test_nobody_in_a_document_becomes_a_surrogate_in_it(world: World) -> None:
    text = " ".join(f"{given} Okafor met {given} Whitlam." for given in ("Sarah", "Nigel", "Ngozi"))
    drawn = world.preview(text).text
    names = {word.strip(".") for word in drawn.split() if word[0].isupper()}
    crowded = f"{text} Present: {', '.join(f'Mr {name}' for name in sorted(names))}."
    again = {
        word.strip(".") for word in world.preview(crowded).text.partition(" Present")[0].split() if word[0].isupper()
    }
    assert len(names) == len(again) == 5 and not names & again


def test_masks_a_value_if_no_surrogate_is_free(world: World) -> None:
    policy = parse_policy(b'[types]\nPHONE_NUMBER = "surrogate"\n[deny]\nPHONE_NUMBER = ["ext. twelve"]\n')
    anonymizer = TextAnonymizer(load_english().with_policy(policy), world.surrogates)
    assert anonymizer.anonymize(("Call ext. twelve.",)).texts == ("Call [PHONE_NUMBER].",)
