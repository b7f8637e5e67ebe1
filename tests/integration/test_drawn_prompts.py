"""An empty queue draws prompts from the newest dataset: synthetic, inference, registry and console over gRPC and PostgreSQL."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from services.console.clients import connect
from services.console.web.app import create_app
from services.registry.adapters import tables
from services.registry.bootstrap import key_verifier
from services.registry.domain import Draft, ErasureRequest
from services.registry.handlers import erasures
from services.registry.handlers.facts import record_draft
from services.registry.rules.expert_queue import MAX_DRAWN_WAITING
from services.registry.wire import to_call
from services.synthetic.adapters.clients import answer_prompt, count_waiting
from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.consumers import Consumers
from services.synthetic.handlers import build_dataset
from services.synthetic.prompt_drawer import PromptDrawer
from services.synthetic.rpc import SyntheticServicer
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.api.registry.v1 import judging_pb2_grpc
from tailor.api.synthetic.v1 import synthetic_pb2, synthetic_pb2_grpc
from tailor.codec import decode
from tailor.events.envelope import Event
from tailor.events.erased import Erased
from tailor.rounds import is_held_out
from tailor.rpc.auth import Authenticator
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.buckets import DRAWN
from tailor.values import DatasetKind
from tests.integration.test_judging_flow import Flow, deliver, fields, flow, synthetic
from tests.synthetic import World as SyntheticWorld
from tests.synthetic import read_splits
from tests.unit.console.world import settings, sign_in

pytestmark = pytest.mark.integration

# Fixtures of the other module.
__all__ = ["flow", "synthetic"]

PROMPTS = 8
# Of the specialist in the fixture.
HELD_OUT_PERCENT = 50


@dataclass
class House:
    """The services of the flow with a synthetic that serves, and its dataset of documents."""

    flow: Flow
    synthetic: SyntheticWorld
    port: int
    browser: TestClient

    def draw(self) -> str:
        """Draw on the page; returns the draft's id once its text is stored."""
        answer = self.browser.post("/api/judge/draw", json={"specialist": "letters"})
        assert answer.status_code == 200, answer.text
        draft_id = str(answer.json()["draft_id"])
        self.flow.wait_for_text(draft_id)
        return draft_id

    def refuse(self, call: Callable[[], object]) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as refused:
            call()
        return refused.value.code()

    def page(self) -> str:
        return self.browser.get("/judge?specialist=letters").text


@pytest.fixture
def house(flow: Flow, synthetic: SyntheticWorld, tmp_path: Path) -> Iterator[House]:
    flow.engine.context_length = 4096
    with serve(flow, synthetic, tmp_path) as port:
        channels = flow.channels() | {"synthetic": flow.registry.channel("console", "synthetic", port)}
        browser = TestClient(create_app(settings(), connect(channels)), follow_redirects=False)
        sign_in(browser, flow.registry.key("EXPERT", "letters"))
        yield House(flow, synthetic, port, browser)


@contextmanager
def serve(flow: Flow, world: SyntheticWorld, folder: Path) -> Iterator[int]:
    """Synthetic's gRPC service; yields its port."""
    inference = flow.registry.channel("synthetic", "inference", flow.inference_port)
    drawer = PromptDrawer(
        world.app.specialists,
        world.browser(),
        SqlDrawnPrompts(world.engine),
        partial(count_waiting, judging_pb2_grpc.JudgingServiceStub(flow.registry.channel("synthetic"))),
        partial(answer_prompt, inference_pb2_grpc.InferenceServiceStub(inference)),
    )
    servicer = SyntheticServicer(world.app, world.browser(), drawer)
    authenticator = Authenticator("synthetic", Trust.load(folder / "trust.json"), key_verifier(flow.registry.begin))
    add = synthetic_pb2_grpc.add_SyntheticServiceServicer_to_server
    server = RpcServer(
        ServiceSettings(rpc_port=0), "synthetic", servicers=[(add, servicer)], authenticator=authenticator
    )
    server.start()
    try:
        yield server.port
    finally:
        server.stop(0)


def build_documents(house: House) -> dict[str, set[str]]:
    """Build a dataset of documents; returns the prompts of each side, without the system prompt."""
    digest = build_dataset(house.synthetic.app, "letters", "").dataset.digest
    return {
        split: {row["messages"][-2]["content"] for row in rows}
        for split, rows in read_splits(house.synthetic.store, digest).items()
    }


def judge_a_drawn_prompt(house: House, number: int) -> str:
    """On an empty page: draw a prompt, have it answered a second time, and judge the pair; returns the first draft's id."""
    assert 'data-draws="letters" data-drafts="" data-waits="yes"' in house.page()
    house.flow.engine.say = f"Good answer {number}."
    first = house.draw()
    page = house.page()
    assert f'data-drafts="{first}" data-waits="yes"' in page and "1 with too few drafts" in page
    house.flow.engine.say = f"Bad answer {number}."
    second = house.browser.post("/api/judge/regenerate", json={"draft_id": first}).json()["draft_id"]
    house.flow.wait_for_text(second)
    page = house.page()
    assert "No caller sent this prompt. It was drawn" in page
    form = fields(page)
    assert set(form["draft"]) == {first, second}
    better = "first" if form["draft"][0] == first else "second"
    house.browser.post("/judge", data=form | {"action": "record", "decision": better})
    assert f"{number + 1} of {number + 1} judged" in house.page()
    return first


def read_rankings(house: House) -> tuple[str, list[dict[str, object]]]:
    """A new dataset of rankings: its digest and its rows."""
    dataset = build_dataset(house.synthetic.app, "letters", "", DatasetKind.PREFERENCE).dataset
    sides = read_splits(house.synthetic.store, dataset.digest)
    assert sides["train"] and sides["held_out"]
    return dataset.digest, [row for rows in sides.values() for row in rows]


def test_an_empty_queue_draws_prompts_that_become_pairs_until_their_document_is_erased(house: House) -> None:
    answer = house.browser.post("/api/judge/draw", json={"specialist": "letters"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "NO_DATASET")
    sides = build_documents(house)
    for number in range(PROMPTS):
        judge_a_drawn_prompt(house, number)
    deliver(house.flow, house.synthetic)
    digest, rows = read_rankings(house)
    drafts = {draft.draft_id: draft for draft in house.flow.drafts}.values()
    assert len(drafts) == 2 * PROMPTS and all(draft.drawn_from and not draft.key_id for draft in drafts)
    assert not any(map(to_call, drafts))
    prompts = {row["messages"][-1]["content"] for row in rows}  # type: ignore[index]
    assert len(prompts) == len(rows) == PROMPTS
    assert prompts <= sides["train"] and not prompts & sides["held_out"]
    assert {row["chosen"] for row in rows} == {f"Good answer {number}." for number in range(PROMPTS)}
    drawn_from = {tuple(draft.drawn_from) for draft in drafts}
    assert {tuple(row["document_ids"]) for row in rows} == drawn_from  # type: ignore[arg-type]
    assert house.synthetic.documents(digest) == {key for keys in drawn_from for key in keys}
    # The prompts hold surrogates already, so that no text passed the barrier again.
    texts = house.flow.store.list_keys("drafts", "")
    assert len(texts) == 2 * PROMPTS and all(key.startswith(DRAWN) for key in texts)
    erase(house, digest, min(drawn_from)[0])


def erase(house: House, digest: str, document_id: str) -> None:
    """Erase a document from which prompts were drawn: nothing of them is left, and nothing comes back."""
    gone = [draft for draft in house.flow.drafts if document_id in draft.drawn_from]
    store, registry = house.synthetic.store, house.flow.registry
    judged = store.list_keys("datasets", "judged/")
    request = ErasureRequest("ers_1", (document_id,), "subject-request")
    assert stored_drafts(house, document_id) == len({draft.draft_id for draft in gone})
    assert erasures.erase(registry.begin, ("synthetic",), request).waiting_for == ("synthetic",)
    record_draft(registry.begin, decode(Draft, gone[0]), gone[0].SerializeToString(), None)
    assert stored_drafts(house, document_id) == 0
    house.synthetic.app = replace(house.synthetic.app, erased={document_id})
    eraser = house.synthetic.eraser()
    forgotten = eraser.forget(Erased(document_id, "ers_1"))
    lost = {draft.draft_id for draft in gone}
    assert digest in forgotten.datasets and forgotten.counts["drafts"] == len(lost)
    assert not store.exists("datasets", f"{digest}/manifest.json")
    for draft in gone:
        sha256 = draft.text.sha256
        assert not sha256 or not store.exists("drafts", f"{DRAWN}{sha256}.json")
        assert f"judged/{sha256}.json" not in store.list_keys("datasets", "judged/")
    assert len(store.list_keys("datasets", "judged/")) == len(judged) - len(lost)
    late = next(draft for draft in gone if draft.text.sha256)
    store.put("drafts", f"{DRAWN}{late.text.sha256}.json", b"late")
    Consumers(house.synthetic.app).draft(Event("draft.created.v1", late.draft_id, late.SerializeToString()))
    assert not store.exists("drafts", f"{DRAWN}{late.text.sha256}.json")
    _, rows = read_rankings(house)
    assert rows and document_id not in {key for row in rows for key in row["document_ids"]}  # type: ignore[attr-defined]


def stored_drafts(house: House, document_id: str) -> int:
    """The drafts in the registry's queue whose prompts were drawn from a document."""
    table = tables.stored_drafts.c
    with house.flow.registry.engine.connect() as connection:
        return len(connection.execute(select(table.draft_id).where(table.drawn_from.contains([document_id]))).all())


def test_an_edited_draft_of_a_drawn_prompt_makes_a_row_unless_its_prompt_is_held_out(house: House) -> None:
    sides = build_documents(house)
    for number in range(PROMPTS):
        house.flow.engine.say = f"Good answer {number}."
        first = house.draw()
        house.flow.engine.say = f"Bad answer {number}."
        second = house.browser.post("/api/judge/regenerate", json={"draft_id": first}).json()["draft_id"]
        house.flow.wait_for_text(second)
        form = fields(house.page())
        body = {key: form[key][0] for key in ("specialist", "attempt")} | {"text": f"Edited answer {number}."}
        places = [1, 2] if form["draft"][0] == first else [2, 1]
        answer = house.browser.post("/api/judge/edit", json=body | {"drafts": form["draft"], "places": places})
        assert answer.status_code == 200, answer.text
    deliver(house.flow, house.synthetic)
    edits = [draft for draft in house.flow.drafts if draft.edit_of]
    assert len(edits) == PROMPTS and all(draft.drawn_from for draft in edits)
    dataset = build_dataset(house.synthetic.app, "letters", "").dataset
    sides_of_rows = read_splits(house.synthetic.store, dataset.digest)
    made = [row for row in sides_of_rows["train"] if row["task"] == "deliverable"]
    free = [draft for draft in edits if not is_held_out(draft.prompt_digest, HELD_OUT_PERCENT)]
    assert 0 < len(made) == len(free) < PROMPTS
    assert {tuple(row["document_ids"][1:]) for row in made} == {tuple(draft.drawn_from) for draft in free}
    assert not [row for row in sides_of_rows["held_out"] if row["task"] == "deliverable"] and sides["held_out"]


def test_only_a_few_drawn_prompts_wait_and_one_is_drawn_at_a_time(house: House) -> None:
    build_documents(house)
    draws = [house.draw() for _ in range(MAX_DRAWN_WAITING)]
    digests = {draft.prompt_digest for draft in house.flow.drafts}
    assert len(set(draws)) == len(digests) == MAX_DRAWN_WAITING
    answer = house.browser.post("/api/judge/draw", json={"specialist": "letters"})
    assert (answer.status_code, answer.json()["reason"]) == (429, "ENOUGH_PROMPTS_WAIT")
    assert 'data-draws=""' in house.page()
    house.browser.post("/judge", data={"specialist": "letters", "draft": draws[:2], "attempt": "a", "action": "skip"})
    with SqlDrawnPrompts(house.synthetic.engine).drawing("letters"):
        answer = house.browser.post("/api/judge/draw", json={"specialist": "letters"})
        assert (answer.status_code, answer.json()["reason"]) == (409, "DRAWING_RUNNING")
    assert house.draw() not in draws


def test_callers_prompts_come_first_and_stop_the_drawing(house: House) -> None:
    build_documents(house)
    house.flow.engine.say = "Drawn."
    house.draw()
    for number in range(2):
        house.flow.ask(f"Write to Ngozi about account {number}.", f"Dear Ngozi, account {number} holds.")
    page = house.page()
    assert 'data-draws=""' in page and "3 with too few drafts" in page
    found = re.search(r'data-drafts="([^"]*)"', page)
    assert found
    by_id = {draft.draft_id: draft for draft in house.flow.drafts}
    assert [bool(by_id[key].drawn_from) for key in found[1].split()] == [False, False, True]


def test_who_may_draw_and_that_only_synthetic_may_say_that_a_text_passed_the_barrier(house: House) -> None:
    build_documents(house)
    registry = house.flow.registry
    registry.specialist("memos")

    def draw(role: str, specialist: str) -> grpc.StatusCode:
        channel = registry.channel(registry.key(role, specialist), "synthetic", house.port)
        request = synthetic_pb2.DrawPromptRequest(specialist="letters")
        return house.refuse(lambda: synthetic_pb2_grpc.SyntheticServiceStub(channel).DrawPrompt(request, timeout=60))

    assert draw("CALLER", "letters") == draw("ENGINEER", "letters") == grpc.StatusCode.PERMISSION_DENIED
    assert draw("EXPERT", "memos") == grpc.StatusCode.NOT_FOUND
    message = inference_pb2.Message(role="user", content="Ines is well.")
    claim = inference_pb2.AnswerDrawnPromptRequest(specialist="letters", messages=[message], document_ids=["doc_1"])
    for caller in (registry.key("OPERATOR", "letters"), "console"):
        channel = registry.channel(caller, "inference", house.flow.inference_port)
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        code = house.refuse(lambda stub=stub: stub.AnswerDrawnPrompt(claim, timeout=60))  # type: ignore[misc]
        assert code == grpc.StatusCode.PERMISSION_DENIED
    assert not house.flow.drafts
