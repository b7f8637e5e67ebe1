"""Preference datasets, from drafts and judgements to rows."""

import json
from dataclasses import replace

import pytest

from services.synthetic import handlers
from services.synthetic.domain import (
    BuildPolicy,
    Document,
    Judgement,
    KeptDraft,
    Kind,
    Specialist,
)
from services.synthetic.erasures import DatasetEraser
from services.synthetic.parquet import read_column
from services.synthetic.rows.preference_rows import PairLimits
from tailor.datasets import DatasetManifest
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.events.erased import Erased
from tailor.pipelines import list_recipes
from tailor.storage.ref import Ref
from tailor.values import DatasetKind, RowPolicy
from tests.unit.synthetic.fakes import SPECIALIST, FakeSynthetic, MemoryRepository, make_app, put_document
from tests.unit.synthetic.test_erasures import MemoryHoldings

LEARNS = replace(SPECIALIST, keep_drafts=True, stages=("sft", "dpo"), policy=BuildPolicy(1, min_ranked_prompts=8))
PREFERENCE = DatasetKind.PREFERENCE


def draft(app: FakeSynthetic, draft_id: str, prompt: int, answer: str) -> KeptDraft:
    messages = [{"role": "user", "content": f"Write about {prompt}."}]
    data = json.dumps({"messages": messages, "answer": answer}).encode()
    return KeptDraft(
        draft_id, "reports", f"prompt{prompt}", "a", app.store.put("drafts", f"texts/{draft_id}.json", data)
    )


def world(specialist: Specialist = LEARNS, prompts: int = 40) -> tuple[FakeSynthetic, MemoryRepository]:
    """An app whose experts have ranked two drafts of every prompt."""
    app = make_app(specialists={"reports": specialist}, pair_limits=PairLimits())
    for number in range(prompts):
        for side, answer in (("good", "Short."), ("bad", "Long and vague.")):
            handlers.on_draft(app, draft(app, f"drf_{number}_{side}", number, f"{answer} {number}"))
        handlers.on_judgement(app, judge(number))
    return app, app.repository


def judge(number: int) -> Judgement:
    return Judgement(f"jdg_{number}", "reports", (f"drf_{number}_good", f"drf_{number}_bad"), {}, "")


def deliver(app: FakeSynthetic, number: int) -> Document:
    document = put_document(app.store, number, text=f"Finished text {number}.")
    return replace(document, kind=Kind.DELIVERABLE, draft_id=f"drf_{number}_good")


def test_rankings_make_a_preference_dataset_due_but_none_of_documents() -> None:
    app, repository = world()
    (result,) = handlers.tick(app)
    dataset = result.dataset
    assert (dataset.kind, list_recipes(dataset.pipeline), dataset.pairs.pairs) == (PREFERENCE, "lora,dpo", 40)
    assert dataset.draft_adapters == ("a",)
    assert dataset.train_rows + dataset.held_out_rows == 40 and dataset.held_out_rows > 0
    assert (dataset.judgements, dataset.documents) == (40, 0)
    manifest = DatasetManifest.parse(app.store.read("datasets", f"{dataset.digest}/manifest.json"))
    (file,) = manifest.judgements.files
    ids = read_column(app.store.get(file.ref), "judgement_id")
    assert (manifest.kind, ids) == (PREFERENCE, sorted(f"jdg_{n}" for n in range(40)))
    assert manifest.split("train").tokens > 5 * dataset.train_rows
    assert handlers.tick(app) == [] and repository.published == [dataset.digest]


@pytest.mark.parametrize(
    "specialist",
    [replace(LEARNS, keep_drafts=False, stages=()), replace(LEARNS, policy=BuildPolicy(min_ranked_prompts=8))],
)
def test_without_opt_in_or_policy_builds_on_command_only(specialist: Specialist) -> None:
    app, _ = world(specialist)
    assert handlers.tick(app) == []
    result = handlers.build_dataset(app, "reports", "one", PREFERENCE)
    assert result.created and handlers.build_dataset(app, "reports", "one", PREFERENCE) == result
    with pytest.raises(InvalidArgument, match="REQUEST_ID_REUSED"):
        handlers.build_dataset(app, "reports", "one")
    assert not handlers.build_dataset(app, "reports", "two", PREFERENCE).created


def test_saves_the_texts_of_judged_drafts_and_forgets_others() -> None:
    app, repository = world()
    handlers.on_draft(app, draft(app, "drf_unjudged", 1, "Nobody looked."))
    for bucket, key in list(app.store.objects):
        if bucket == "drafts":
            app.store.delete(bucket, key)
    (result,) = handlers.tick(app)
    assert result.dataset.pairs.pairs == 40
    assert repository.forgotten_after == [30]
    assert [key for key, draft in repository.drafts.items() if not draft.saved] == ["drf_unjudged"]


def test_saves_a_draft_that_arrives_after_its_judgement() -> None:
    app, repository = world(prompts=0)
    handlers.on_judgement(app, judge(0))
    handlers.on_draft(app, draft(app, "drf_0_good", 0, "Good."))
    handlers.on_draft(app, draft(app, "drf_0_good", 0, "Again."))
    assert repository.drafts["drf_0_good"].saved and repository.drafts["drf_0_good"].text.bucket == "datasets"


def test_ignores_a_text_that_has_expired() -> None:
    app, repository = world(prompts=0)
    gone = KeptDraft("drf_0_good", "reports", "prompt0", "a", Ref("s3://drafts/texts/gone.json", "x", 1))
    handlers.on_draft(app, gone)
    handlers.on_judgement(app, judge(0))
    assert not repository.drafts["drf_0_good"].saved


def test_refuses_too_few_pairs_and_reports_the_counts() -> None:
    app, repository = world(prompts=3)
    with pytest.raises(FailedPrecondition, match="TOO_FEW_ROWS") as refused:
        handlers.build_dataset(app, "reports", "", PREFERENCE)
    assert refused.value.metadata["judgements"] == "3" and "3 rankings" in refused.value.message
    assert handlers.tick(app) == [] and repository.published == []


def test_refuses_what_could_not_pass_and_says_how_many_prompts_are_missing() -> None:
    app, repository = world(replace(LEARNS, policy=BuildPolicy(1)), prompts=40)
    with pytest.raises(FailedPrecondition, match="40 ranked prompts; a round needs 42: 2 to go"):
        handlers.build_dataset(app, "reports", "", PREFERENCE)
    assert handlers.tick(app) == [] and repository.published == []
    enough, _ = world(replace(LEARNS, policy=BuildPolicy(1)), prompts=60)
    (result,) = handlers.tick(enough)
    assert result.dataset.held_out_rows >= 5


def test_no_dataset_has_pairs_of_an_erased_deliverable() -> None:
    app, repository = world()
    sources = [deliver(app, number) for number in range(40)]
    for document in sources:
        handlers.on_document(app, document)
    old = handlers.build_dataset(app, "reports", "", PREFERENCE).dataset
    before = app.documents(old.digest)
    erased = min(before)
    forgotten = DatasetEraser(app, MemoryHoldings(repository), lambda _: 0).forget(Erased(erased, "ers_1"))
    (new,) = [dataset for dataset in repository.datasets.values() if dataset.kind is PREFERENCE]
    assert new.digest != old.digest and app.documents(new.digest) == before - {erased}
    assert forgotten.datasets == (old.digest,) and forgotten.counts["datasets"] == 1
    assert not app.store.exists("datasets", f"{old.digest}/manifest.json")


def test_rankings_of_a_retired_adapters_drafts_are_dropped_and_the_dataset_is_superseded() -> None:
    app, repository = world()
    for number in range(40, 80):
        for side, answer in (("good", "Brief."), ("bad", "Far too long.")):
            kept = draft(app, f"drf_{number}_{side}", number, f"{answer} {number}")
            handlers.on_draft(app, replace(kept, adapter_digest="b"))
        handlers.on_judgement(app, judge(number))
    old = handlers.build_dataset(app, "reports", "", PREFERENCE).dataset
    assert old.draft_adapters == ("a", "b")
    erased = Erased("doc_1", "ers_1", adapters=("a",), retired=("a",))
    eraser = DatasetEraser(app, MemoryHoldings(repository), lambda _: 0)
    forgotten = eraser.forget(erased)
    (new,) = repository.datasets.values()
    assert (new.draft_adapters, new.pairs.pairs) == (("b",), 40)
    assert (forgotten.counts["drafts"], forgotten.counts["ranked_datasets"], forgotten.datasets) == (80, 1, ())
    assert not app.store.exists("datasets", f"{old.digest}/manifest.json")
    assert len([key for bucket, key in app.store.objects if bucket == "datasets" and key.startswith("judged/")]) == 80
    assert not any(eraser.forget(erased).counts.values())


def test_marked_adapters_keep_the_rankings_of_their_drafts() -> None:
    app, repository = world()
    old = handlers.build_dataset(app, "reports", "", PREFERENCE).dataset
    DatasetEraser(app, MemoryHoldings(repository), lambda _: 0).forget(Erased("doc_1", "ers_1", adapters=("a",)))
    assert list(repository.datasets.values()) == [old]


def test_a_deliverable_answers_its_drafts_prompt_in_the_dataset_of_documents() -> None:
    app, _ = world(replace(LEARNS, system_prompt="House style."))
    for number in range(20):
        document = deliver(app, number)
        handlers.on_document(app, document)
        text = json.dumps(
            {"prompt": None, "text": f"Finished text number{number} " + "on the harbour and its cranes. " * 8}
        ).encode()
        longer = replace(document, sequence=2, text=app.store.put("corpus", f"documents/longer{number}", text))
        handlers.on_document(app, longer)
    dataset = handlers.build_dataset(app, "reports", "").dataset
    rows = [row for split in ("train", "held_out") for row in app.rows(dataset.digest, split)]
    rows = [row for row in rows if row["task"] == "deliverable"]
    assert {row["made_by"] for row in rows} == {"human"} and len(rows) == 20
    assert all(row["messages"][0] == {"role": "system", "content": "House style."} for row in rows)
    (row,) = [row for row in rows if row["document_ids"] == [f"doc_{7:032d}"]]
    assert row["messages"][1]["content"] == "Write about 7."
    assert row["messages"][2]["content"].startswith("Finished text number7 on the harbour")


def test_a_pair_is_as_long_as_the_specialists_rows_may_be() -> None:
    app, _ = world(replace(LEARNS, rows=RowPolicy(max_row_tokens=10)))
    with pytest.raises(FailedPrecondition, match="40 too long"):
        handlers.build_dataset(app, "reports", "", PREFERENCE)
