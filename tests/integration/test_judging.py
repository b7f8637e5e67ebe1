"""The queue of drafts that experts judge, over gRPC and PostgreSQL."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine

from services.registry.adapters import tables
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Gate, KeyTerms, PrimaryMetric, Specialist
from services.registry.handlers import keys, specialists
from services.registry.judging_rpc import JudgingServicer
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from services.registry.wire import to_draft
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import judging_pb2, judging_pb2_grpc, registry_pb2, registry_pb2_grpc
from tailor.errors import FailedPrecondition, NotFound, PermissionDenied
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Identity, Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.words import Labels
from tests.conftest import migrated

pytestmark = pytest.mark.integration

PROMPTS = 5


def anonymize(text: str, labels: Labels) -> str:
    return text


class World:
    """A registry whose specialist `memos` stores its drafts; `reports` does not. Callers sent five prompts to each."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.begin = transactions(engine, Outbox(engine, tables.outbox, MemoryProducer("registry")))
        for name in ("memos", "reports"):
            gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
            specialists.create_specialist(
                self.begin, Specialist(name, "tiny", "lora", gate=gate, keep_drafts=name == "memos")
            )
            for number in range(PROMPTS):
                self.draft(f"drf_{name}_{number}_a", name, f"prompt {number}", "key_1")
                if number:
                    self.draft(f"drf_{name}_{number}_b", name, f"prompt {number}")
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        (folder / "trust.json").write_text(json.dumps({"console": public}))
        self._identity = Identity("console", key)
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    registry_pb2_grpc.add_RegistryServiceServicer_to_server,
                    RegistryServicer(self.begin, Queries(engine), anonymize, (), lambda *_: None),
                ),
                (judging_pb2_grpc.add_JudgingServiceServicer_to_server, JudgingServicer(self.begin)),
            ],
            authenticator=Authenticator("registry", Trust.load(folder / "trust.json"), key_verifier(self.begin)),
        )
        self.server.start()

    def draft(self, draft_id: str, specialist: str, prompt: str, key_id: str = "", text: str = "s3://drafts/t") -> None:
        """Catalogue a draft as inference publishes it: first without its text."""
        message = drafts_pb2.DraftCreated(
            draft_id=draft_id, specialist=specialist, prompt_digest=prompt, answer_digest=draft_id, key_id=key_id
        )
        message.create_time.GetCurrentTime()
        for reference in ("", text):
            if reference:
                message.text.uri = reference
            with self.begin() as tx:
                tx.facts.save_draft(to_draft(message), message.SerializeToString())

    def key(self, role: str = "EXPERT", specialist: str = "memos") -> str:
        """The secret of a new key."""
        return keys.create_key(self.begin, KeyTerms("test", f"ROLE_{role}", (specialist,)), lambda _: True, "key_1")[1]

    def queue(self, secret: str) -> judging_pb2_grpc.JudgingServiceStub:
        return judging_pb2_grpc.JudgingServiceStub(self._channel(secret))

    def registry(self, secret: str) -> registry_pb2_grpc.RegistryServiceStub:
        return registry_pb2_grpc.RegistryServiceStub(self._channel(secret))

    def next(self, secret: str, specialist: str = "memos", **request: str) -> judging_pb2.NextPairResponse:
        with wire_errors("registry"):
            request_message = judging_pb2.NextPairRequest(specialist=specialist, **request)
            return self.queue(secret).NextPair(request_message, timeout=10)

    def judge(self, secret: str, *ranking: str, request_id: str = "") -> drafts_pb2.JudgementRecorded:
        request = registry_pb2.RecordJudgementRequest(ranking=ranking, request_id=request_id)
        return self.registry(secret).RecordJudgement(request, timeout=10).judgement

    def _channel(self, secret: str) -> grpc.Channel:
        token = (lambda: self._identity.token("registry")) if secret == "console" else (lambda: secret)
        return open_channel(f"127.0.0.1:{self.server.port}", token)


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
        drafts = {pair.first_draft_id, pair.second_draft_id}
        seen.append(drafts)
        if step < PROMPTS - 2:
            world.judge(secret, *drafts)
        else:
            skip = judging_pb2.SkipPairRequest(specialist="memos", draft_id=pair.first_draft_id)
            for _ in range(2):
                world.queue(secret).SkipPair(skip, timeout=10)
    assert len({frozenset(drafts) for drafts in seen}) == PROMPTS - 1
    empty = world.next(secret)
    assert (empty.first_draft_id, empty.progress.judged, empty.progress.waiting) == ("", PROMPTS - 2, 0)
    world.draft("drf_memos_0_b", "memos", "prompt 0")
    assert {world.next(secret).first_draft_id, world.next(secret).second_draft_id} == {"drf_memos_0_a", "drf_memos_0_b"}


def test_what_one_expert_skipped_waits_for_the_others(world: World) -> None:
    first, second = world.key(), world.key()
    pair = world.next(first)
    world.queue(first).SkipPair(
        judging_pb2.SkipPairRequest(specialist="memos", draft_id=pair.first_draft_id), timeout=10
    )
    assert (world.next(first).progress.waiting, world.next(second).progress.waiting) == (PROMPTS - 2, PROMPTS - 1)


def test_the_console_speaks_for_its_visitor(world: World) -> None:
    secret = world.key()
    key_id = world.registry(world.key("OPERATOR")).ListKeys(registry_pb2.ListKeysRequest(), timeout=10).keys
    (own,) = [key.key_id for key in key_id if key.role == common_pb2.ROLE_EXPERT]
    world.judge(secret, world.next(secret).first_draft_id, world.next(secret).second_draft_id)
    assert world.next("console", judged_by=own) == world.next(secret)
    with pytest.raises(FailedPrecondition) as refused:
        world.next("console")
    assert refused.value.reason == "JUDGE_NEEDS_KEY"
    # A key cannot speak for another one.
    assert world.next(world.key(), judged_by=own).progress.judged == 0


def test_a_specialist_that_stores_no_texts_has_no_queue(world: World) -> None:
    queue = world.next(world.key(specialist="reports"), "reports")
    assert (queue.first_draft_id, queue.progress.waiting, queue.progress.incomplete) == ("", 0, 0)


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
        world.queue(world.key()).SkipPair(foreign, timeout=10)
    assert unknown.value.reason == "UNKNOWN_DRAFT"
