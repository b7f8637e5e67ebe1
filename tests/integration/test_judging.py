"""The queue of drafts that experts judge, over gRPC and PostgreSQL."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, select, update

from services.registry.adapters import tables
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Draft, Fact, FactKind, Gate, JudgingPolicy, KeyTerms, PrimaryMetric, Specialist
from services.registry.handlers import keys, specialists
from services.registry.judging_rpc import JudgingServicer
from services.registry.panel_rpc import PanelServicer
from services.registry.people_rpc import PeopleServicer
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from services.registry.rules.expert_queue import UNDO_WINDOW
from services.registry.rules.panel import measure_panel
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2, models_pb2
from tailor.api.registry.v1 import (
    judging_pb2,
    judging_pb2_grpc,
    panel_pb2_grpc,
    people_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)
from tailor.codec import decode
from tailor.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.values import JudgingCriterion, Labels
from tests.conftest import migrated

pytestmark = pytest.mark.integration

PROMPTS = 5


def anonymize(text: str, labels: Labels) -> str:
    return text


class World:
    """A registry whose specialist `memos` stores its drafts; `reports` does not. Callers sent five prompts to each."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.producer = MemoryProducer("registry")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.begin = transactions(engine, self.outbox)
        for name in ("memos", "reports"):
            self.specialist(name, keep_drafts=name == "memos")
            for number in range(PROMPTS):
                self.draft(f"drf_{name}_{number}_a", name, f"prompt {number}", "key_1")
                if number:
                    self.draft(f"drf_{name}_{number}_b", name, f"prompt {number}")
        private = {name: Ed25519PrivateKey.generate() for name in ("console", "inference", "synthetic")}
        public = {
            name: key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            for name, key in private.items()
        }
        (folder / "trust.json").write_text(json.dumps(public))
        self._identities = {name: Identity(name, key) for name, key in private.items()}
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                    RegistryServicer(self.begin, Queries(engine), anonymize, (), check_pipeline=lambda *_: None),
                ),
                (judging_pb2_grpc.add_JudgingServiceServicer_to_server, JudgingServicer(self.begin)),
                (panel_pb2_grpc.add_PanelServiceServicer_to_server, PanelServicer(self.begin, Queries(engine))),
                (
                    people_pb2_grpc.add_PeopleServiceServicer_to_server,
                    PeopleServicer(self.begin, Queries(engine)),
                ),
            ],
            authenticator=Authenticator("registry", Trust.load(folder / "trust.json"), key_verifier(self.begin)),
        )
        self.server.start()

    def specialist(self, name: str, *, keep_drafts: bool = True) -> None:
        """Create a specialist that learns from rankings."""
        gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
        specialist = Specialist(
            name, "tiny", "lora", gate=gate, keep_drafts=keep_drafts, stages=("sft", "dpo"), recipes={"dpo": "dpo"}
        )
        specialists.create_specialist(self.begin, specialist)

    def draft(self, draft_id: str, specialist: str, prompt: str, key_id: str = "", *, edit_of: str = "") -> None:
        """Catalogue a draft as inference publishes it: first without its text."""
        message = drafts_pb2.DraftCreated(
            draft_id=draft_id, specialist=specialist, prompt_digest=prompt, answer_digest=draft_id, key_id=key_id
        )
        message.edit_of = edit_of
        message.create_time.GetCurrentTime()
        for reference in ("", "s3://drafts/t"):
            if reference:
                message.text.uri = reference
            with self.begin() as tx:
                tx.facts.save_draft(decode(Draft, message), message.SerializeToString())

    def key(self, role: str = "EXPERT", specialist: str = "memos") -> str:
        """The secret of a new key."""
        return keys.create_key(self.begin, KeyTerms("test", f"ROLE_{role}", (specialist,)), lambda _: True, "key_1")[1]

    def queue(self, secret: str) -> judging_pb2_grpc.JudgingServiceStub:
        return judging_pb2_grpc.JudgingServiceStub(self.channel(secret))

    def registry(self, secret: str) -> registry_pb2_grpc.RegistryServiceStub:
        return registry_pb2_grpc.RegistryServiceStub(self.channel(secret))

    def next(self, secret: str, specialist: str = "memos", **request: str) -> judging_pb2.NextPairResponse:
        with wire_errors("registry"):
            request_message = judging_pb2.NextPairRequest(specialist=specialist, **request)
            return self.queue(secret).NextPair(request_message, timeout=60)

    def judge(self, secret: str, *ranking: str, request_id: str = "") -> drafts_pb2.JudgementRecorded:
        request = registry_pb2.RecordJudgementRequest(ranking=ranking, request_id=request_id)
        return self.registry(secret).RecordJudgement(request, timeout=60).judgement

    def channel(self, caller: str, service: str = "registry", port: int = 0) -> grpc.Channel:
        """A channel to a service, for a key's secret or in the name of a service."""
        identity = self._identities.get(caller)
        token = (lambda: identity.token(service)) if identity else (lambda: caller)
        return open_channel(f"127.0.0.1:{port or self.server.port}", token)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        yield world
        world.server.stop(0)


def test_an_expert_judges_and_skips_until_nothing_waits(world: World) -> None:
    secret, seen = world.key(), []
    for step in range(PROMPTS - 1):
        pair = world.next(secret)
        assert pair == world.next(secret)
        assert (pair.progress.judged, pair.progress.waiting, pair.progress.incomplete) == (step, PROMPTS - 1 - step, 1)
        assert list(pair.incomplete_draft_ids) == ["drf_memos_0_a"]
        drafts = {*pair.draft_ids}
        seen.append(drafts)
        if step < PROMPTS - 2:
            world.judge(secret, *drafts)
        else:
            skip = judging_pb2.SkipPairRequest(specialist="memos", draft_id=pair.draft_ids[0])
            for _ in range(2):
                world.queue(secret).SkipPair(skip, timeout=60)
    assert len({frozenset(drafts) for drafts in seen}) == PROMPTS - 1
    empty = world.next(secret)
    assert ([*empty.draft_ids], empty.progress.judged, empty.progress.waiting) == ([], PROMPTS - 2, 0)
    world.draft("drf_memos_0_b", "memos", "prompt 0")
    assert {*world.next(secret).draft_ids} == {"drf_memos_0_a", "drf_memos_0_b"}


def test_what_one_expert_skipped_waits_for_the_others(world: World) -> None:
    first, second = world.key(), world.key()
    pair = world.next(first)
    world.queue(first).SkipPair(judging_pb2.SkipPairRequest(specialist="memos", draft_id=pair.draft_ids[0]), timeout=60)
    assert (world.next(first).progress.waiting, world.next(second).progress.waiting) == (PROMPTS - 2, PROMPTS - 1)


def test_the_console_speaks_for_its_visitor(world: World) -> None:
    secret = world.key()
    key_id = world.registry(world.key("OPERATOR")).ListKeys(registry_pb2.ListKeysRequest(), timeout=60).keys
    (own,) = [key.key_id for key in key_id if key.role == common_pb2.ROLE_EXPERT]
    world.judge(secret, *world.next(secret).draft_ids)
    assert world.next("console", judged_by=own) == world.next(secret)
    with pytest.raises(FailedPrecondition) as refused:
        world.next("console")
    assert refused.value.reason == "JUDGE_NEEDS_KEY"
    # A key cannot speak for another one.
    assert world.next(world.key(), judged_by=own).progress.judged == 0


def test_a_specialist_that_stores_no_texts_has_no_queue(world: World) -> None:
    queue = world.next(world.key(specialist="reports"), "reports")
    assert ([*queue.draft_ids], queue.progress.waiting, queue.progress.incomplete) == ([], 0, 0)


def test_the_queue_is_for_experts_of_the_specialist(world: World) -> None:
    for secret, specialist in ((world.key(specialist="reports"), "memos"), (world.key(), "never-created")):
        with pytest.raises(NotFound) as refused:
            world.next(secret, specialist)
        assert refused.value.reason == "UNKNOWN_SPECIALIST"
    for role in ("CALLER", "ENGINEER"):
        with pytest.raises(PermissionDenied):
            world.next(world.key(role))
    foreign = judging_pb2.SkipPairRequest(specialist="memos", draft_id="drf_reports_0_a")
    with pytest.raises(NotFound) as unknown, wire_errors("registry"):
        world.queue(world.key()).SkipPair(foreign, timeout=60)
    assert unknown.value.reason == "UNKNOWN_DRAFT"


def undo(world: World, secret: str, decision: str) -> str:
    with wire_errors("registry"):
        request = judging_pb2.UndoJudgementRequest(specialist="memos", decision=decision)
        return world.queue(secret).UndoJudgement(request, timeout=60).judgement_id


def own(world: World, secret: str, **request: Any) -> judging_pb2.ListOwnJudgementsResponse:
    message = judging_pb2.ListOwnJudgementsRequest(specialist="memos", **request)
    return world.queue(secret).ListOwnJudgements(message, timeout=60)


def test_a_judgement_that_is_taken_back_is_published_as_retracted_and_its_prompt_waits_again(world: World) -> None:
    secret = world.key()
    pair = world.next(secret)
    judgement = world.judge(secret, *pair.draft_ids, request_id="one")
    decision = world.next(secret).last_decision
    assert own(world, secret).last_decision == decision
    assert undo(world, secret, decision) == judgement.judgement_id
    again = world.next(secret)
    assert (again.draft_ids, again.progress.judged, again.last_decision) == (pair.draft_ids, 0, "")
    # A late repetition of the call does not record it again.
    world.judge(secret, *pair.draft_ids, request_id="one")
    assert not own(world, secret).judgements and Queries(world.engine).judgements("memos") == []
    while world.outbox.relay():
        pass
    published = world.producer.messages("judgement.recorded.v1")
    sent = [message for message in published if isinstance(message, drafts_pb2.JudgementRecorded)]
    assert [(message.judgement_id, message.retracted, len(message.ranking)) for message in sent] == [
        (judgement.judgement_id, False, 2),
        (judgement.judgement_id, True, 0),
    ]


def test_only_the_last_decision_is_taken_back_and_once(world: World) -> None:
    secret, other = world.key(), world.key()
    for _ in range(2):
        pair = world.next(secret)
        world.judge(secret, *pair.draft_ids)
    skip = judging_pb2.SkipPairRequest(specialist="memos", draft_id=world.next(secret).draft_ids[0])
    world.queue(secret).SkipPair(skip, timeout=60)
    decision = world.next(secret).last_decision
    assert undo(world, secret, decision) == ""
    for secret_key, token in (
        (secret, decision),
        (other, world.next(secret).last_decision),
        (secret, ""),
        (secret, "x"),
        (secret, "9" * 5000),
    ):
        with pytest.raises(NotFound) as refused:
            undo(world, secret_key, token)
        assert refused.value.reason == "NOTHING_TO_UNDO"
    assert undo(world, secret, world.next(secret).last_decision).startswith("jdg_")
    assert (world.next(secret).progress.judged, world.next(secret).progress.waiting) == (1, PROMPTS - 2)


def test_a_decision_is_not_taken_back_later(world: World) -> None:
    secret = world.key()
    pair = world.next(secret)
    world.judge(secret, *pair.draft_ids)
    decision = world.next(secret).last_decision
    table = tables.expert_decisions
    with world.engine.begin() as connection:
        connection.execute(update(table).values(create_time=table.c.create_time - UNDO_WINDOW))
    assert world.next(secret).last_decision == ""
    with pytest.raises(NotFound):
        undo(world, secret, decision)


def test_a_judgement_in_a_dataset_is_not_taken_back_but_a_skip_is(world: World) -> None:
    secret = world.key()
    pair = world.next(secret)
    world.judge(secret, *pair.draft_ids)
    decision = world.next(secret).last_decision
    dataset = models_pb2.DatasetBuilt(digest="d" * 64, specialist="memos", kind=models_pb2.DATASET_KIND_PREFERENCE)
    dataset.create_time.GetCurrentTime()
    with world.begin() as tx:
        tx.facts.upsert(Fact(FactKind.DATASET, f"{dataset.digest}/memos", "memos", dataset.SerializeToString()))
    assert world.next(secret).last_decision == ""
    with pytest.raises(FailedPrecondition) as refused:
        undo(world, secret, decision)
    assert refused.value.reason == "JUDGEMENT_IN_DATASET"
    skip = judging_pb2.SkipPairRequest(specialist="memos", draft_id=world.next(secret).draft_ids[0])
    world.queue(secret).SkipPair(skip, timeout=60)
    assert undo(world, secret, world.next(secret).last_decision) == ""


def test_an_edited_draft_is_judged_but_never_queued_and_its_marks_are_those_of_the_draft(world: World) -> None:
    experts = [world.key() for _ in range(2)]
    for secret in experts:
        world.draft(f"drf_edit_{secret}", "memos", "prompt 1", edit_of="drf_memos_1_a")
    for secret in experts:
        request = registry_pb2.RecordJudgementRequest(
            ranking=[f"drf_edit_{secret}", "drf_memos_1_a", "drf_memos_1_b"], rubric=drafts_pb2.Rubric(style=4)
        )
        judgement = world.registry(secret).RecordJudgement(request, timeout=60).judgement
        assert judgement.edited and judgement.expert_id and len(judgement.ranking) == 3
    # It counts as the expert's decision, and as one ranked prompt; edited drafts are not compared again.
    queue = world.next(experts[0])
    assert (queue.progress.judged, queue.progress.waiting, queue.progress.round.prompts) == (1, PROMPTS - 2, 1)
    assert not world.judge(world.key(), "drf_memos_2_a", "drf_memos_2_b").edited
    table = tables.stored_drafts
    with world.engine.begin() as connection:
        assert not connection.execute(select(table).where(table.c.draft_id.startswith("drf_edit"))).all()
    (style,) = (
        item
        for item in measure_panel(Queries(world.engine).judgements("memos"), [])
        if item.criterion == "style" and not item.expert_id
    )
    assert style.agreement.units == 1


@pytest.mark.parametrize("kind", [models_pb2.DATASET_KIND_SFT, models_pb2.DATASET_KIND_PREFERENCE])
def test_an_edit_is_taken_back_until_a_dataset_of_either_kind_was_built(
    world: World, kind: models_pb2.DatasetKind.ValueType
) -> None:
    secret = world.key()
    world.draft("drf_edit", "memos", "prompt 1", edit_of="drf_memos_1_a")
    world.judge(secret, "drf_edit", "drf_memos_1_a", "drf_memos_1_b")
    assert undo(world, secret, world.next(secret).last_decision).startswith("jdg_")
    assert world.next(secret).progress.judged == 0
    world.judge(secret, "drf_edit", "drf_memos_1_a", "drf_memos_1_b", request_id="again")
    decision = world.next(secret).last_decision
    dataset = models_pb2.DatasetBuilt(digest="d" * 64, specialist="memos", kind=kind)
    dataset.create_time.GetCurrentTime()
    with world.begin() as tx:
        tx.facts.upsert(Fact(FactKind.DATASET, f"{dataset.digest}/memos", "memos", dataset.SerializeToString()))
    assert decision and world.next(secret).last_decision == ""
    with pytest.raises(FailedPrecondition) as refused:
        undo(world, secret, decision)
    assert refused.value.reason == "JUDGEMENT_IN_DATASET"


def test_experts_who_disagree_are_joined_by_another_one(world: World) -> None:
    with world.begin() as tx:
        specialist = tx.specialists.find(name="memos")
    assert specialist is not None
    changed = replace(specialist, judging=JudgingPolicy(1.0, 2))
    specialists.update_specialist(world.begin, changed)
    experts = [world.key() for _ in range(5)]
    drafts = ["drf_memos_1_a", "drf_memos_1_b"]
    world.judge(experts[0], *drafts)
    world.judge(experts[1], *reversed(drafts))
    assert world.next(experts[2]).progress.waiting == PROMPTS - 1
    world.judge(experts[2], *drafts)
    assert world.next(experts[3]).progress.waiting == PROMPTS - 1
    world.judge(experts[3], *drafts)
    assert world.next(experts[4]).progress.waiting == PROMPTS - 2


def test_an_expert_lists_own_judgements_only(world: World) -> None:
    first, second = world.key(), world.key()
    given = []
    for _ in range(3):
        pair = world.next(first)
        given.append(world.judge(first, *pair.draft_ids).judgement_id)
    world.judge(second, "drf_memos_1_a", "drf_memos_1_b")
    page = own(world, first, page_size=2)
    assert [judgement.judgement_id for judgement in page.judgements] == given[:0:-1]
    rest = own(world, first, page_size=2, page_token=page.next_page_token)
    assert ([judgement.judgement_id for judgement in rest.judgements], rest.next_page_token) == (given[:1], "")


OWN = (
    JudgingCriterion("tone", "Is the tone right?", "blames", "plain and kind"),
    JudgingCriterion("owner", "Does each finding have an owner?", "none has", "each has"),
)


def change_policy(world: World, policy: JudgingPolicy) -> None:
    with world.begin() as tx:
        specialist = tx.specialists.find(name="memos")
    assert specialist is not None
    specialists.update_specialist(world.begin, replace(specialist, judging=policy))


def test_experts_mark_each_draft_by_the_specialists_own_criteria(world: World) -> None:
    secret = world.key()
    assert [criterion.name for criterion in world.next(secret).criteria] == ["accuracy", "style", "usefulness"]
    change_policy(world, JudgingPolicy(criteria=OWN))
    queue = world.next(secret)
    assert tuple(decode(JudgingCriterion, item) for item in queue.criteria) == OWN
    first, second = queue.draft_ids
    marks = [
        drafts_pb2.DraftMark(draft_id=first, criterion="tone", mark=5),
        drafts_pb2.DraftMark(draft_id=second, criterion="tone", mark=2),
        drafts_pb2.DraftMark(draft_id=second, criterion="owner", mark=3),
    ]
    bad = drafts_pb2.JUDGEMENT_OUTCOME_BOTH_BAD
    request = registry_pb2.RecordJudgementRequest(ranking=[first, second], marks=marks, outcome=bad)
    judgement = world.registry(secret).RecordJudgement(request, timeout=60).judgement
    assert list(judgement.marks) == marks and not judgement.ranking
    assert list(own(world, secret).judgements[0].marks) == marks
    for wrong in (
        [drafts_pb2.DraftMark(draft_id=first, criterion="style", mark=5)],
        [drafts_pb2.DraftMark(draft_id="drf_memos_0_a", criterion="tone", mark=5)],
        [*marks, marks[0]],
    ):
        refused = registry_pb2.RecordJudgementRequest(ranking=[first, second], marks=wrong)
        with pytest.raises(InvalidArgument) as problem, wire_errors("registry"):
            world.registry(secret).RecordJudgement(refused, timeout=60)
        assert [*problem.value.field_violations] == ["marks"]


def test_a_prompt_waits_until_it_has_the_drafts_that_experts_rank_and_ties_are_no_pairs(world: World) -> None:
    secret = world.key()
    change_policy(world, JudgingPolicy(drafts=4))
    queue = world.next(secret)
    assert (queue.progress.waiting, queue.progress.incomplete) == (0, PROMPTS)
    world.draft("drf_memos_1_c", "memos", "prompt 1")
    world.draft("drf_memos_1_d", "memos", "prompt 1")
    drafts = world.next(secret).draft_ids
    assert sorted(drafts) == [f"drf_memos_1_{side}" for side in "abcd"]
    request = registry_pb2.RecordJudgementRequest(ranking=drafts, places=[1, 2, 2, 3])
    judgement = world.registry(secret).RecordJudgement(request, timeout=60).judgement
    assert (list(judgement.ranking), list(judgement.places)) == (list(drafts), [1, 2, 2, 3])
    queue = world.next(secret)
    assert (queue.progress.waiting, queue.progress.judged, queue.progress.round.prompts) == (0, 1, 1)
    (stored,) = Queries(world.engine).judgements("memos")
    assert len(stored.decided_pairs) == 5 and (drafts[1], drafts[2]) not in stored.decided_pairs
