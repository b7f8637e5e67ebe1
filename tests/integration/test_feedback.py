"""Callers' feedback over PostgreSQL and gRPC: anonymised, one for each draft and caller, listed for those who may use the specialist."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from services.registry.adapters import tables
from services.registry.adapters.compared_texts import StoredComparedTexts
from services.registry.adapters.sql import transactions
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Draft, Feedback, FeedbackVerdict, Gate, KeyTerms, PrimaryMetric, Specialist
from services.registry.feedback_rpc import FeedbackServicer
from services.registry.handlers import keys, specialists
from services.registry.handlers.feedback import store_feedback
from services.registry.queries import Queries
from services.registry.rules.feedback import TEXT_LIFETIME
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import drafts_pb2
from tailor.api.registry.v1 import feedback_pb2, feedback_pb2_grpc
from tailor.api.registry.v1.feedback_pb2 import ListFeedbackRequest
from tailor.codec import decode
from tailor.errors import NotFound, PermissionDenied
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Authenticator
from tailor.rpc.channel import open_channel, wire_errors
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.memory import MemoryStore
from tailor.values import Labels
from tests.conftest import migrated

pytestmark = pytest.mark.integration

ADAPTER = "ad" * 32


def anonymize(text: str, labels: Labels) -> str:
    return text.replace("Sarah Jenkins", "Helen Ward")


class World:
    """Two specialists, of which `memos` keeps its drafts, each with two drafts."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.begin = transactions(engine, Outbox(engine, tables.outbox, MemoryProducer("registry")))
        self.queries = Queries(engine)
        self.texts = StoredComparedTexts(MemoryStore())
        for name in ("memos", "reports"):
            gate = Gate(PrimaryMetric("rougeL"), min_rows=1)
            specialist = Specialist(name, "tiny", "lora", gate=gate, keep_drafts=name == "memos")
            specialists.create_specialist(self.begin, specialist)
            for number, digest in enumerate((ADAPTER, "be" * 32)):
                message = drafts_pb2.DraftCreated(
                    draft_id=f"drf_{name}_{number}", specialist=name, adapter_digest=digest
                )
                with self.begin() as tx:
                    tx.facts.save_draft(decode(Draft, message), message.SerializeToString())

    def give(
        self, feedback_id: str, draft_id: str, verdict: FeedbackVerdict, text: str = "", stars: int = 0
    ) -> Feedback:
        said = Feedback(
            feedback_id, draft_id, "", "", verdict, text, stars, "Thanks, Sarah Jenkins.", datetime.now(UTC)
        )
        return store_feedback(self.begin, anonymize, self.texts, said)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield World(engine)


def test_feedback_is_anonymised_and_replaced_by_a_later_one(world: World) -> None:
    first = world.give("fbk_1", "drf_memos_0", FeedbackVerdict.ACCEPTED, stars=5)
    assert (first.specialist, first.adapter_digest, first.comment) == ("memos", ADAPTER, "Thanks, Helen Ward.")
    world.give("fbk_1", "drf_memos_0", FeedbackVerdict.EDITED, "As Sarah Jenkins wrote.", 2)
    world.give("fbk_2", "drf_memos_1", FeedbackVerdict.REJECTED)
    request = ListFeedbackRequest(specialist="memos", page_size=1)
    page, totals = world.queries.list_feedback(request)
    request.page_token = page.next_token
    rows = page.items + world.queries.list_feedback(request)[0].items
    assert [(said.feedback_id, said.edited_text, said.stars) for said in rows] == [
        ("fbk_2", "", 0),
        ("fbk_1", "As Helen Ward wrote.", 2),
    ]
    assert (totals.accepted, totals.edited, totals.rejected, totals.rated, totals.mean_stars) == (0, 1, 1, 1, 2.0)
    of_adapter = ListFeedbackRequest(specialist="memos", adapter_digest=ADAPTER)
    assert world.queries.list_feedback(of_adapter)[1].rejected == 0
    assert world.queries.list_feedback(ListFeedbackRequest(specialist="reports"))[0].items == []


def test_edited_text_is_stored_only_if_drafts_are_and_for_as_long(world: World) -> None:
    assert world.give("fbk_1", "drf_reports_0", FeedbackVerdict.EDITED, "Better.").edited_text == ""
    assert world.give("fbk_2", "drf_memos_0", FeedbackVerdict.EDITED, "Better.").edited_text == "Better."
    table = tables.feedback
    with world.engine.begin() as connection:
        connection.execute(update(table).values(create_time=table.c.create_time - TEXT_LIFETIME))
    (old,) = world.queries.list_feedback(ListFeedbackRequest(specialist="memos"))[0].items
    assert (old.verdict, old.edited_text) == (FeedbackVerdict.EDITED, "")
    world.give("fbk_3", "drf_memos_1", FeedbackVerdict.EDITED, "New.")
    with world.engine.connect() as connection:
        texts = connection.execute(select(table.c.feedback_id, table.c.edited_text).order_by(table.c.feedback_id))
        assert {row.feedback_id: row.edited_text for row in texts} == {"fbk_1": "", "fbk_2": "", "fbk_3": "New."}


def test_feedback_on_an_unknown_draft_is_refused(world: World) -> None:
    with pytest.raises(NotFound) as refused:
        world.give("fbk_1", "drf_never", FeedbackVerdict.ACCEPTED)
    assert refused.value.reason == "UNKNOWN_DRAFT"


def test_people_list_the_feedback_of_their_specialists(world: World, tmp_path: Path) -> None:
    world.give("fbk_1", "drf_memos_0", FeedbackVerdict.ACCEPTED)
    world.give("fbk_2", "drf_memos_1", FeedbackVerdict.REJECTED)
    (tmp_path / "trust.json").write_text(json.dumps({}))
    add = feedback_pb2_grpc.add_FeedbackServiceServicer_to_server
    servicer = FeedbackServicer(world.begin, world.queries, anonymize, world.texts)
    authenticator = Authenticator("registry", Trust.load(tmp_path / "trust.json"), key_verifier(world.begin))
    server = RpcServer(
        ServiceSettings(rpc_port=0), "registry", servicers=[(add, servicer)], authenticator=authenticator
    )
    server.start()

    def stub(role: str, specialist: str) -> feedback_pb2_grpc.FeedbackServiceStub:
        terms = KeyTerms("test", f"ROLE_{role}", (specialist,))
        secret = keys.create_key(world.begin, terms, lambda _: True, "key_1")[1]
        return feedback_pb2_grpc.FeedbackServiceStub(open_channel(f"127.0.0.1:{server.port}", lambda: secret))

    request = feedback_pb2.ListFeedbackRequest(specialist="memos", page_size=1)
    page = stub("EXPERT", "memos").ListFeedback(request, timeout=60)
    assert [said.verdict for said in page.feedback] == [common_pb2.FEEDBACK_VERDICT_REJECTED]
    assert (page.totals.accepted, page.totals.rejected, bool(page.next_page_token)) == (1, 1, True)
    request.page_token = page.next_page_token
    second = stub("OPERATOR", "memos").ListFeedback(request, timeout=60)
    assert ([said.feedback_id for said in second.feedback], second.next_page_token) == (["fbk_1"], "")
    with pytest.raises(NotFound), wire_errors("registry"):
        stub("ENGINEER", "reports").ListFeedback(request, timeout=60)
    with pytest.raises(PermissionDenied), wire_errors("registry"):
        stub("CALLER", "memos").ListFeedback(request, timeout=60)
    store = feedback_pb2.StoreFeedbackRequest(draft_id="drf_memos_0", verdict=common_pb2.FEEDBACK_VERDICT_ACCEPTED)
    with pytest.raises(PermissionDenied), wire_errors("registry"):
        stub("OPERATOR", "memos").StoreFeedback(store, timeout=60)
    server.stop(0)
