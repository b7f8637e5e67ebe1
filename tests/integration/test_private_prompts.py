"""Private prompts from end to end: real anonymization over gRPC, with its language model, and engines that echo and that compute."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from sqlalchemy import Engine, Row

from services.anonymization.vault.tables import ENTRIES
from services.inference.adapters.anonymization import AnonymizationClient
from services.inference.adapters.drafts import DraftBucket
from services.inference.domain import ChatMessage, GenerationRequest, Sampling
from services.inference.draft_texts import DraftTextStore
from services.inference.engines.transformers_engine import TransformersEngine
from services.inference.generation import AnswerStream, Cancellation
from services.inference.handlers import generate
from services.inference.ports import InferenceEngine
from tailor.errors import InvalidArgument, Unavailable
from tailor.rows import Rows
from tailor.storage.memory import MemoryStore
from tests.barrier import MIGRATIONS, channel
from tests.conftest import migrated
from tests.databases import Databases
from tests.models import make_tiny_base
from tests.policy_house import PolicyHouse
from tests.unit.inference.echo import EchoEngine
from tests.unit.inference.fakes import KEY, Published, World, make_world, served

pytestmark = pytest.mark.integration

ASKED = """Write to Ms Zilphara Okaforwe (z.okaforwe@vanterpool.example, +44 20 7946 0018) about IBAN GB82 WEST 1234 5698 7654 32.
Okaforwe's file HL-EMP-20417 names Vanterpool Logistics BV; please remind zilphara."""
# Names that are on no list of names, so that no surrogate can be one of them.
RAW = ("zilphara", "okaforwe", "vanterpool", "7946 0018", "west 1234", "20417")


class House(PolicyHouse):
    """Anonymization behind gRPC."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.server = self.serve()
        self.anonymizer = AnonymizationClient(channel(self.server, "inference"))

    def world(self, engine: InferenceEngine) -> World:
        """Inference with a specialist whose prompts are private."""
        world = make_world(engine=engine)
        world.models.table.switch(served("reports", 1))
        world.inference.definitions.define("reports", keep_drafts=True, private_prompts=True)
        return replace(world, inference=replace(world.inference, anonymizer=self.anonymizer))


@pytest.fixture(scope="module")
def house(databases: Databases) -> Iterator[House]:
    url = databases.create()
    with migrated(url, MIGRATIONS) as engine:
        house = House(engine)
        yield house
        house.server.stop(0)
    databases.drop(url)


def answered(world: World, text: str, schema: str = "", max_tokens: int = 100) -> AnswerStream:
    sampling = Sampling(schema=schema, max_tokens=max_tokens)
    answer = generate(
        world.inference, KEY, GenerationRequest("reports", (ChatMessage("user", text),), sampling), Cancellation()
    )
    for _ in answer:
        pass
    assert isinstance(answer, AnswerStream)
    return answer


def test_personal_values_reach_the_caller_but_not_the_engine_the_vault_or_the_bucket(
    house: House,
) -> None:
    engine = EchoEngine(4)
    world, store, published = house.world(engine), MemoryStore(), Published()
    definitions = world.inference.definitions
    texts = DraftTextStore(definitions, house.anonymizer, DraftBucket(store).put, published.draft)
    drafts = replace(world.inference.drafts, keep_text=texts.keep)
    world = replace(world, inference=replace(world.inference, drafts=drafts))
    assert answered(world, ASKED).text == ASKED
    prompt = engine.encoded[0][0].content
    assert prompt != ASKED and [raw for raw in RAW if raw in prompt.casefold()] == []
    published.wait_for_draft(texts.run)
    ((_, data),) = store.objects.items()
    entries = Rows(house.engine, ENTRIES, Row).all()
    values = [(entry.surrogate, house.vault.reveal(entry.entity_type, entry.surrogate)) for entry in entries]
    stored = data.decode().casefold() + repr((published.drafts, world.published.drafts, values)).casefold()
    assert [raw for raw in RAW if raw in stored] == []
    assert all(value for _, value in values) and values


def test_does_not_ask_the_model_without_anonymization_or_with_a_prompt_that_is_too_long(house: House) -> None:
    engine = EchoEngine()
    world = house.world(engine)
    with pytest.raises(InvalidArgument) as refused:
        answered(world, "word " * 50_000)
    assert refused.value.reason == "PROMPT_TOO_LONG" and set(refused.value.field_violations) == {"messages"}
    away = AnonymizationClient(grpc.insecure_channel("127.0.0.1:1"))
    with pytest.raises(Unavailable):
        answered(replace(world, inference=replace(world.inference, anonymizer=away)), ASKED)
    assert engine.encoded == []


def test_a_real_engine_writes_a_surrogate_by_schema_and_the_caller_gets_json_with_the_value(
    house: House, tmp_path: Path
) -> None:
    engine = TransformersEngine(make_tiny_base(tmp_path, [ASKED]), targets=(), context_length=512, threads=1)
    try:
        world = house.world(engine)
        value = 'Ms Zilphara Okaforwe, "HL-EMP-20417"'
        schema = {
            "type": "object",
            "properties": {"to": {"const": value}},
            "required": ["to"],
            "additionalProperties": False,
        }
        answer = answered(world, f"Who is it? {value}", json.dumps(schema), 300)
        assert json.loads(answer.text) == {"to": value}
        ((_, transcript),) = world.archive.offered
        assert [
            raw
            for raw in ("Zilphara", "Okaforwe", "20417")
            if raw in transcript.answer + transcript.messages[0].content
        ] == []
    finally:
        engine.close()
