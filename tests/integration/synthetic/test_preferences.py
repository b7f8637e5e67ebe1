"""Preference datasets, from drafts and judgements to rows, and their erasure; over PostgreSQL."""

import json
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.synthetic import handlers
from services.synthetic.domain import BuildPolicy, Judgement, KeptDraft, Kind, Specialist
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.events.erased import Erased
from tailor.pipelines import list_recipes
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, RowPolicy
from tests.synthetic import SPECIALIST, World, distinct, key_of, tick

pytestmark = pytest.mark.integration

LEARNS = replace(SPECIALIST, keep_drafts=True, stages=("sft", "dpo"), policy=BuildPolicy(1, min_ranked_prompts=8))
PREFERENCE = DatasetKind.PREFERENCE


def draft(world: World, number: int, side: str, adapter: str = "a") -> KeptDraft:
    messages = [{"role": "user", "content": f"Write about {number}."}]
    data = json.dumps({"messages": messages, "answer": f"A {side} answer {number}."}).encode()
    key = f"drf_{number}_{side}"
    return KeptDraft(key, "reports", f"prompt{number}", adapter, world.store.put("drafts", f"texts/{key}.json", data))


def judge(number: int) -> Judgement:
    return Judgement(f"jdg_{number}", "reports", (f"drf_{number}_good", f"drf_{number}_bad"), {}, "")


def rank(world: World, first: int, last: int, adapter: str = "a") -> None:
    """Experts rank two drafts of each prompt."""
    for number in range(first, last):
        for side in ("good", "bad"):
            handlers.on_draft(world.app, draft(world, number, side, adapter))
        handlers.on_judgement(world.app, judge(number))


def ranked(engine: Engine, specialist: Specialist = LEARNS, prompts: int = 40) -> World:
    world = World(engine, specialists={"reports": specialist})
    rank(world, 0, prompts)
    return world


def test_rankings_make_a_dataset_due_if_the_specialist_learns_from_them(engine: Engine) -> None:
    world = ranked(engine, replace(LEARNS, keep_drafts=False, stages=()))
    assert tick(world.app) == []
    world.define(keep_drafts=True, stages=("sft", "dpo"), policy=BuildPolicy(min_ranked_prompts=8))
    assert tick(world.app) == []
    result = handlers.build_dataset(world.app, "reports", "one", PREFERENCE)
    again = handlers.build_dataset(world.app, "reports", "one", PREFERENCE)
    assert result.created and (again.created, again.dataset.digest) == (True, result.dataset.digest)
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        handlers.build_dataset(world.app, "reports", "one")
    assert not world.build_result(kind=PREFERENCE).created
    dataset = result.dataset
    assert list_recipes(dataset.pipeline) == "lora,dpo" and dataset.pairs.pairs == 40
    assert dataset.train_rows + dataset.held_out_rows == 40 and dataset.held_out_rows > 0
    assert world.manifest(dataset.digest).split("train").tokens > 5 * dataset.train_rows
    # An adapter that is only marked keeps the rankings of its drafts.
    world.eraser().forget(Erased("doc_1", "ers_1", adapters=("a",)))
    assert [it.digest for it in world.datasets.all(specialist="reports")] == [dataset.digest]


def test_saves_the_texts_of_judged_drafts_in_any_order_and_ignores_those_that_have_expired(engine: Engine) -> None:
    world = World(engine, specialists={"reports": LEARNS})
    gone = KeptDraft("drf_0_bad", "reports", "prompt0", "a", Ref("s3://drafts/texts/gone.json", "x", 1))
    handlers.on_draft(world.app, gone)
    handlers.on_judgement(world.app, judge(0))
    for _ in range(2):
        handlers.on_draft(world.app, draft(world, 0, "good"))
    bad, good = sorted(world.repository.drafts.all(draft_id=["drf_0_good", "drf_0_bad"]), key=lambda it: it.draft_id)
    assert good.saved and good.text.bucket == "datasets" and not bad.saved


def test_refuses_what_could_not_pass_and_says_what_is_missing(engine: Engine) -> None:
    world = ranked(engine, prompts=3)
    with pytest.raises(FailedPrecondition, match="3 rankings") as refused:
        world.build(kind=PREFERENCE)
    assert refused.value.metadata["judgements"] == "3" and tick(world.app) == []
    world.define(policy=BuildPolicy(1))
    rank(world, 3, 40)
    with pytest.raises(FailedPrecondition, match="40 ranked prompts; a round needs 42: 2 to go"):
        world.build(kind=PREFERENCE)
    assert tick(world.app) == [] and world.published() == []
    world.define(rows=RowPolicy(max_row_tokens=10))
    with pytest.raises(FailedPrecondition, match="40 too long"):
        world.build(kind=PREFERENCE)
    world.define(rows=RowPolicy())
    rank(world, 40, 60)
    (result,) = tick(world.app)
    assert result.dataset.held_out_rows >= 5


def test_a_deliverable_gives_a_pair_and_answers_its_drafts_prompt_until_it_is_erased(engine: Engine) -> None:
    world = ranked(engine)
    for number in range(20):
        world.put(
            number,
            text=f"Finished text number{number} {distinct(number).splitlines()[4]}",
            kind=Kind.DELIVERABLE,
            draft_id=f"drf_{number}_good",
        )
    documents = world.build().digest
    rows = [row for split in ("train", "held_out") for row in world.rows(documents, split)]
    rows = [row for row in rows if row["task"] == "deliverable"]
    assert {row["made_by"] for row in rows} == {"human"} and len(rows) == 20
    (row,) = [row for row in rows if row["document_ids"] == [key_of(7)]]
    system, asked, answer = (message["content"] for message in row["messages"])
    assert (system, asked) == (LEARNS.system_prompt, "Write about 7.") and answer.startswith("Finished text number7")
    old = world.build(kind=PREFERENCE).digest
    before = world.documents(old)
    erased = min(before)
    forgotten = world.eraser().forget(Erased(erased, "ers_1"))
    new = world.build(kind=PREFERENCE).digest
    assert new != old and world.documents(new) == before - {erased} and old in forgotten.datasets
    assert not world.store.exists("datasets", f"{old}/manifest.json")


def test_rankings_of_a_retired_adapters_drafts_are_dropped_and_the_dataset_is_superseded(engine: Engine) -> None:
    world = ranked(engine)
    rank(world, 40, 80, adapter="b")
    old = world.build(kind=PREFERENCE)
    assert old.draft_adapters == ("a", "b")
    erased = Erased("doc_1", "ers_1", adapters=("a",), retired=("a",))
    forgotten = world.eraser().forget(erased)
    (new,) = world.datasets.all(specialist="reports")
    assert (new.draft_adapters, new.pairs.pairs) == (("b",), 40)
    assert (forgotten.counts["drafts"], forgotten.counts["ranked_datasets"], forgotten.datasets) == (80, 1, ())
    assert not world.store.exists("datasets", f"{old.digest}/manifest.json")
    assert len(world.store.list_keys("datasets", "judged/")) == 80
    assert not any(world.eraser().forget(erased).counts.values())
