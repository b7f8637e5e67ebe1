"""Experts' judgements over gRPC and PostgreSQL: each has an opaque id, and the panel's agreement follows from them."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Engine

from services.registry.adapters import tables
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Draft, Gate, KeyTerms, PrimaryMetric, Specialist
from services.registry.handlers import keys, specialists
from services.registry.panel_rpc import PanelServicer
from services.registry.queries import Queries
from services.registry.rpc import RegistryServicer
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import panel_pb2, panel_pb2_grpc, registry_pb2, registry_pb2_grpc
from tailor.codec import decode
from tailor.errors import NotFound, PermissionDenied
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.values import Labels
from tests.conftest import migrated

pytestmark = pytest.mark.integration

PAIRS = 6
RANKED = drafts_pb2.JUDGEMENT_OUTCOME_UNSPECIFIED


def anonymize(text: str, labels: Labels) -> str:
    return text


class World:
    """A registry with two specialists; `memos` has pairs of drafts."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.begin = transactions(engine, Outbox(engine, tables.outbox, MemoryProducer("registry")))
        for name in ("memos", "reports"):
            gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
            specialists.create_specialist(self.begin, Specialist(name, "tiny", "lora", gate=gate))
        for number in range(PAIRS):
            for side in "ab":
                message = drafts_pb2.DraftCreated(draft_id=f"drf_{number}_{side}", specialist="memos")
                with self.begin() as tx:
                    tx.facts.save_draft(decode(Draft, message), message.SerializeToString())
        (folder / "trust.json").write_text(json.dumps({}))
        queries = Queries(engine)
        add = registry_pb2_grpc.add_RegistryServiceServicer_to_server
        self.server = RpcServer(
            ServiceSettings(rpc_port=0),
            "registry",
            servicers=[
                (
                    add,
                    RegistryServicer(self.begin, queries, anonymize, (), check_pipeline=lambda *_: None),
                ),
                (panel_pb2_grpc.add_PanelServiceServicer_to_server, PanelServicer(self.begin, queries)),
            ],
            authenticator=Authenticator("registry", Trust.load(folder / "trust.json"), key_verifier(self.begin)),
        )
        self.server.start()

    def key(self, role: str, specialist: str = "memos") -> str:
        """The secret of a new key."""
        terms = KeyTerms("test", f"ROLE_{role}", (specialist,))
        return keys.create_key(self.begin, terms, lambda _: True, "key_1")[1]

    def judge(
        self,
        secret: str,
        *ranking: str,
        outcome: drafts_pb2.JudgementOutcome.ValueType = RANKED,
        comment: str = "",
    ) -> drafts_pb2.JudgementRecorded:
        stub = registry_pb2_grpc.RegistryServiceStub(self._channel(secret))
        # Only a service may speak for another key.
        request = registry_pb2.RecordJudgementRequest(
            ranking=ranking, judged_by="key_of_somebody_else", outcome=outcome, comment=comment
        )
        return stub.RecordJudgement(request, timeout=60).judgement

    def agreement(self, secret: str, specialist: str = "memos") -> panel_pb2.GetAgreementResponse:
        stub = panel_pb2_grpc.PanelServiceStub(self._channel(secret))
        with wire_errors("registry"):
            return stub.GetAgreement(panel_pb2.GetAgreementRequest(specialist=specialist), timeout=60)

    def propose(self, secret: str, specialist: str = "memos") -> panel_pb2.ProposeGuidelinesResponse:
        stub = panel_pb2_grpc.PanelServiceStub(self._channel(secret))
        with wire_errors("registry"):
            return stub.ProposeGuidelines(panel_pb2.ProposeGuidelinesRequest(specialist=specialist), timeout=60)

    def _channel(self, secret: str) -> grpc.Channel:
        return open_channel(f"127.0.0.1:{self.server.port}", lambda: secret)


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        world = World(engine, tmp_path)
        yield world
        world.server.stop(0)


def test_agreement_follows_from_the_judgements_of_each_key(world: World) -> None:
    first, second, operator = world.key("EXPERT"), world.key("EXPERT"), world.key("OPERATOR")
    ids = set()
    for number in range(PAIRS):
        better, worse = (f"drf_{number}_{side}" for side in ("ab" if number % 2 else "ba"))
        ids.add(world.judge(first, better, worse).expert_id)
        ids.add(world.judge(second, better, worse).expert_id)
    assert len(ids) == 2
    assert all(len(expert_id) == 36 and expert_id.startswith("exp_") for expert_id in ids)
    found = world.agreement(operator)
    assert (found.judgements, found.experts) == (2 * PAIRS, 2)
    panel, *experts = [item for item in found.agreement if item.criterion == "ranking"]
    assert (panel.units, panel.alpha, panel.low, panel.high) == (PAIRS, 1.0, 1.0, 1.0)
    assert {item.expert_id for item in experts} == ids
    assert not [item for item in found.agreement if item.criterion != "ranking" and item.HasField("alpha")]


def test_tie_is_published_without_a_ranking(world: World) -> None:
    tie = drafts_pb2.JUDGEMENT_OUTCOME_TIE
    judgement = world.judge(world.key("EXPERT"), "drf_0_a", "drf_0_b", outcome=tie)
    assert (judgement.outcome, list(judgement.ranking)) == (tie, [])
    assert list(judgement.equal_drafts) == ["drf_0_a", "drf_0_b"]
    world.judge(world.key("EXPERT"), "drf_0_a", "drf_0_b")
    panel = world.agreement(world.key("OPERATOR")).agreement[0]
    assert (panel.criterion, panel.units) == ("ranking", 1)
    assert panel.alpha <= 0.0


def test_agreement_is_for_those_who_may_use_the_specialist(world: World) -> None:
    assert world.agreement(world.key("EXPERT")).judgements == 0
    for secret, specialist in ((world.key("EXPERT", "reports"), "memos"), (world.key("EXPERT"), "never-created")):
        with pytest.raises(NotFound):
            world.agreement(secret, specialist)
    with pytest.raises(PermissionDenied):
        world.agreement(world.key("CALLER"))


def test_proposes_guidelines_from_comments_for_operators(world: World) -> None:
    first, second = world.key("EXPERT"), world.key("EXPERT")
    for secret, comment in ((first, "Please close more kindly."), (second, "Close more kindly!"), (second, "")):
        world.judge(secret, "drf_0_a", "drf_0_b", comment=comment)
    found = world.propose(world.key("OPERATOR"))
    assert found.comments == 2
    (guideline,) = found.guidelines
    assert (guideline.text, guideline.comments, guideline.experts) == ("Close more kindly!", 2, 2)
    assert {example.text for example in guideline.examples} == {"Please close more kindly.", "Close more kindly!"}
    assert "exp_" not in str(found) and not guideline.adopted
    with pytest.raises(PermissionDenied):
        world.propose(first)
    with pytest.raises(NotFound):
        world.propose(world.key("OPERATOR", "reports"))
