"""A caller's draft on its way to a ranked prompt: inference, registry and console over gRPC, an expert in the browser."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from services.console.clients import connect
from services.console.web.app import create_app
from services.inference import wire as inference_wire
from services.inference.adapters.drafts import DraftArchive, DraftBucket
from services.inference.definitions import Definitions
from services.inference.domain import Draft
from services.inference.draft_texts import DraftTextStore
from services.inference.generation import DraftRecorder, ReadinessGate
from services.inference.rpc import InferenceServicer
from services.registry.bootstrap import MIGRATIONS, key_verifier
from services.registry.domain import Draft as JudgedDraft
from services.registry.handlers.facts import record_draft
from services.synthetic.bootstrap import MIGRATIONS as SYNTHETIC_MIGRATIONS
from services.synthetic.consumers import Consumers
from services.synthetic.domain import BuildPolicy
from services.synthetic.edited_rows import EditedRows
from services.synthetic.handlers import build_dataset
from services.synthetic.rows.preference_rows import PairLimits
from tailor.api.events.v1 import drafts_pb2
from tailor.api.inference.v1 import inference_pb2, inference_pb2_grpc
from tailor.codec import decode
from tailor.events.envelope import Event
from tailor.rounds import is_held_out
from tailor.rpc.auth import Authenticator
from tailor.rpc.identity import Trust
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings
from tailor.storage.memory import MemoryStore
from tailor.values import DatasetKind, Labels, RowPolicy
from tests.conftest import migrated
from tests.integration.test_judging import World
from tests.synthetic import SPECIALIST, WordTokenizers, read_splits
from tests.synthetic import World as SyntheticWorld
from tests.unit.console.world import World as ConsoleWorld
from tests.unit.console.world import settings, sign_in
from tests.unit.inference.fakes import FakeAnonymizer, FakeEngine, apply_serving, forwarder, make_world, served
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

KEY = b"0123456789abcdef"
HELD_OUT_PERCENT = 50


@dataclass
class Flow:
    """The three services; `engine.say` is what the model writes next."""

    registry: World
    engine: FakeEngine
    inference_port: int
    store: MemoryStore
    drafts: list[drafts_pb2.DraftCreated]

    def ask(self, prompt: str, answer: str) -> str:
        """Ask as a caller's system; returns the draft's id once its text is stored."""
        self.engine.say = answer
        secret = self.registry.key("CALLER", "letters")
        channel = self.registry.channel(secret, "inference", self.inference_port)
        request = inference_pb2.GenerateRequest(model="letters", prompt=prompt)
        draft_id = inference_pb2_grpc.InferenceServiceStub(channel).Generate(request, timeout=60).draft_id
        self.wait_for_text(draft_id)
        return str(draft_id)

    def wait_for_text(self, draft_id: str) -> None:
        """Block until the registry knows that the draft's text is stored."""

        def is_stored() -> bool:
            with self.registry.begin() as tx:
                draft = tx.facts.find_draft(draft_id)
            return draft is not None and draft.text is not None

        wait_until(is_stored)

    def channels(self) -> dict[str, grpc.Channel]:
        """The console's channels: to the registry and inference of the flow, and to fakes."""
        return ConsoleWorld().channels | {
            "registry": self.registry.channel("console"),
            "inference": self.registry.channel("console", "inference", self.inference_port),
        }

    def browser(self) -> TestClient:
        """An expert who is signed in to the console."""
        browser = TestClient(create_app(settings(), connect(self.channels())), follow_redirects=False)
        sign_in(browser, self.registry.key("EXPERT", "letters"))
        return browser


@pytest.fixture
def flow(database_url: str, tmp_path: Path) -> Iterator[Flow]:
    with migrated(database_url, MIGRATIONS) as engine:
        yield from run_flow(engine, tmp_path)


def run_flow(engine: Engine, folder: Path) -> Iterator[Flow]:
    """Run the services until the generator is closed."""
    registry, store, definitions = World(engine, folder), MemoryStore(), Definitions()
    drafts: list[drafts_pb2.DraftCreated] = []
    registry.specialist("letters")
    definitions.define("letters", Labels(), keep_drafts=True)

    def publish(draft: Draft) -> None:
        message = inference_wire.from_draft(draft, "tiny")
        drafts.append(message)
        record_draft(registry.begin, decode(JudgedDraft, message), message.SerializeToString(), None)

    anonymizer = FakeAnonymizer({"Ines": "Ngozi"})
    texts = DraftTextStore(definitions, anonymizer, DraftBucket(store).put, publish)
    world = make_world()
    apply_serving(world, served("letters", 1, "a"))
    inference = replace(
        world.inference,
        definitions=definitions,
        anonymizer=anonymizer,
        drafts=DraftRecorder(publish, texts.keep, KEY, world.inference.drafts.new_id),
        archive=DraftArchive(registry.channel("inference"), store),
    )
    gate, stop = ReadinessGate(), threading.Event()
    gate.open(inference)
    authenticator = Authenticator("inference", Trust.load(folder / "trust.json"), key_verifier(registry.begin))
    add = inference_pb2_grpc.add_InferenceServiceServicer_to_server
    server = RpcServer(
        ServiceSettings(rpc_port=0),
        "inference",
        servicers=[(add, InferenceServicer(gate, forwarder()))],
        authenticator=authenticator,
    )
    server.start()
    thread = threading.Thread(target=texts.run, args=(stop,))
    thread.start()
    try:
        yield Flow(registry, world.engine, server.port, store, drafts)
    finally:
        stop.set()
        thread.join(60)
        server.stop(0)
        registry.server.stop(0)


@pytest.fixture
def synthetic(flow: Flow, database_url: str) -> Iterator[SyntheticWorld]:
    """Synthetic over its own database and the same object store, with a few documents."""
    url = f"{database_url}_synthetic"
    address, _, name = url.replace("+psycopg", "").rpartition("/")
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        with migrated(url, SYNTHETIC_MIGRATIONS) as engine:
            world = SyntheticWorld(engine, flow.store)
            world.app.specialists["letters"] = replace(
                SPECIALIST,
                name="letters",
                keep_drafts=True,
                stages=("sft", "dpo"),
                policy=BuildPolicy(1, min_ranked_prompts=1),
                rows=RowPolicy(held_out_percent=HELD_OUT_PERCENT),
            )
            edits = EditedRows(world.repository, flow.store, WordTokenizers())
            limits = PairLimits(min_train_rows=1, min_held_out_rows=1)
            world.app = replace(world.app, extra_rows=(edits,), pair_limits=limits)
            world.fill()
            yield world
    finally:
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def deliver(flow: Flow, synthetic: SyntheticWorld) -> None:
    """Give synthetic all events so far, once more if it had them."""
    consumers = Consumers(synthetic.app)
    for draft in flow.drafts:
        consumers.draft(Event("draft.created.v1", draft.draft_id, draft.SerializeToString()))
    while flow.registry.outbox.relay():
        pass
    for message in flow.registry.producer.messages("judgement.recorded.v1"):
        consumers.judgement(Event("judgement.recorded.v1", "letters", message.SerializeToString()))


def fields(page: str) -> dict[str, list[str]]:
    """The hidden fields of the form that decides."""
    form = page[page.index('id="decide"') :]
    values: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        values.setdefault(name, []).append(value)
    return values


def test_a_callers_draft_gets_a_second_one_and_becomes_a_ranked_prompt_until_that_is_taken_back(flow: Flow) -> None:
    first = flow.ask("Write to Ngozi about the cash.", "Dear Ngozi, the cash holds.")
    browser = flow.browser()
    page = browser.get("/judge?specialist=letters").text
    assert f'data-drafts="{first}" data-waits="yes"' in page and "0 of 1 judged, 1 with too few drafts" in page
    flow.engine.say = "Dear Ines, the cash falls."
    second = browser.post("/api/judge/regenerate", json={"draft_id": first}).json()["draft_id"]
    flow.wait_for_text(second)
    page = browser.get("/judge?specialist=letters").text
    # The second answer was made of surrogates, and has the same one.
    assert "Write to Ines about the cash." in page and "Ngozi" not in page
    assert "Dear Ines, the cash holds." in page and "Dear Ines, the cash falls." in page
    form = fields(page)
    assert set(form["draft"]) == {first, second}
    better = "first" if form["draft"][0] == second else "second"
    browser.post("/judge", data=form | {"action": "record", "decision": better, "mark-0-style": "4"})
    page = browser.get("/judge?specialist=letters").text
    assert "1 of 1 judged. 1 ranked prompt" in page and "No prompt of a caller waits for you." in page
    own = browser.get("/judge/own?specialist=letters").text
    assert f"/drafts/{second}" in own and "style 4" in own
    decision = re.search(r'name="decision" value="(\d+)"', page)
    assert decision
    undone = browser.post("/judge/undo", data={"specialist": "letters", "decision": decision.group(1)})
    assert undone.status_code == 303
    assert "0 of 1 judged. 0 ranked prompts" in browser.get("/judge?specialist=letters").text


PROMPTS = 6


def edit_pair(flow: Flow, browser: TestClient, number: int) -> str:
    """Have a prompt answered twice, edit the first draft in the console, with a real name in it, and return the edited draft's id."""
    first = flow.ask(f"Write to Ngozi about account {number}.", f"Dear Ngozi, account {number} holds.")
    flow.engine.say = f"Dear Ines, account {number} falls."
    flow.wait_for_text(browser.post("/api/judge/regenerate", json={"draft_id": first}).json()["draft_id"])
    form = fields(browser.get("/judge?specialist=letters").text)
    body: dict[str, Any] = {key: form[key][0] for key in ("specialist", "attempt")}
    body |= {"drafts": form["draft"], "places": [1, 2] if form["draft"][0] == first else [2, 1]}
    body |= {"text": f"Dear Ines, account {number} holds well, as Ngozi says."}
    for _ in range(2):
        assert browser.post("/api/judge/edit", json=body).status_code == 200
    (edited,) = {draft.draft_id for draft in flow.drafts if draft.edit_of == first}
    return edited


def test_a_draft_that_an_expert_edited_becomes_a_pair_and_a_row_until_that_is_taken_back(
    flow: Flow, synthetic: SyntheticWorld
) -> None:
    browser = flow.browser()
    edited = [edit_pair(flow, browser, number) for number in range(PROMPTS)]
    page = browser.get("/judge?specialist=letters").text
    assert f"{PROMPTS} of {PROMPTS} judged" in page and f"{PROMPTS} ranked prompts" in page
    assert browser.get("/judge/own?specialist=letters").text.count("<td>edited</td>") == PROMPTS
    deliver(flow, synthetic)
    rows, pairs = build_rows(synthetic)
    digests = {draft.draft_id: draft.prompt_digest for draft in flow.drafts}
    taught = {number for number, draft_id in enumerate(edited) if not is_held_out(digests[draft_id], HELD_OUT_PERCENT)}
    assert sorted(rows) == sorted(
        (f"Write to Ines about account {number}.", f"Dear Ines, account {number} holds well, as Ines says.")
        for number in taught
    )
    assert {(chosen, rejected) for chosen, rejected in pairs} == {
        pair
        for number in range(PROMPTS)
        for pair in (
            (f"Dear Ines, account {number} holds well, as Ines says.", f"Dear Ines, account {number} holds."),
            (f"Dear Ines, account {number} holds.", f"Dear Ines, account {number} falls."),
        )
    }
    decision = re.search(r'name="decision" value="(\d+)"', page)
    assert decision
    browser.post("/judge/undo", data={"specialist": "letters", "decision": decision.group(1)})
    deliver(flow, synthetic)
    rows, pairs = build_rows(synthetic)
    # It undid the newest decision.
    assert (len(rows), len(pairs), len(set(edited))) == (len(taught - {PROMPTS - 1}), 2 * (PROMPTS - 1), PROMPTS)


def build_rows(world: SyntheticWorld) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Prompts and answers of the deliverables in a new dataset of documents, and the pairs of one of rankings."""
    documents = build_dataset(world.app, "letters", "").dataset
    rankings = build_dataset(world.app, "letters", "", DatasetKind.PREFERENCE).dataset
    rows = [row for split in read_splits(world.store, documents.digest).values() for row in split]
    pairs = [row for split in read_splits(world.store, rankings.digest).values() for row in split]
    made = [row["messages"] for row in rows if row["task"] == "deliverable"]
    return (
        [(messages[-2]["content"], messages[-1]["content"]) for messages in made],
        [(row["chosen"], row["rejected"]) for row in pairs],
    )
