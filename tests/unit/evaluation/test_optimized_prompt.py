"""The baseline `prompt`: gepa finds instructions that make the references likelier, within a budget, once per dataset."""

import importlib.util
from collections.abc import Sequence

import pytest

from services.evaluation.baselines.gepa_optimizer import PromptTask
from services.evaluation.baselines.optimized_prompt import SEED, OptimizedPromptModel, PromptBudget
from services.evaluation.baselines.prompt_store import PromptStore
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import Answer, HeldOutRow, LoadedCandidate, OptimizedPrompt, Score
from services.evaluation.ports import Models
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, Unavailable
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults
from tests.unit.evaluation.test_few_shot import SmallModels, opener, row

MANIFEST = Ref("s3://datasets/d/manifest.json", "d", 1)
TRAIN = [row(f"t{number}", f"Report number {number}") for number in range(8)]
BETTER = "Write VALVE in every answer."


class Promptable(Models):
    """Finds a reference likelier if the instructions say VALVE. Its reflection proposes that, and asks are counted."""

    def __init__(self, *, down: bool = False, reflection_error: Exception | None = None) -> None:
        self.down = down
        self.reflection_error = reflection_error
        self.scored = 0
        self.reflections: list[str] = []

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        raise NotImplementedError

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        assert model == "base"
        prompt = messages[-1][1]
        if "new instruction" in prompt:
            self.reflections.append(prompt)
            if self.reflection_error:
                raise self.reflection_error
            return Answer(f"Here it is:\n```\n{BETTER}\n```")
        return Answer("A plain answer.")

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        if self.down:
            raise Unavailable(Reason.NO_MODEL_READY, "Loading.")
        self.scored += 1
        return Score(-1.0 if "VALVE" in messages[0][1] else -4.0, 2)


def prompted(
    models: Models,
    store: MemoryStore,
    rows: Sequence[HeldOutRow] = TRAIN,
    seed: str = "",
) -> OptimizedPromptModel:
    return OptimizedPromptModel(
        models=models,
        base="tiny",
        data=TrainData(opener(rows), {"d1": MANIFEST}),
        seed=seed,
        task=PromptTask(models, SamplingDefaults(max_tokens=9)),
        reflection="base",
        store=PromptStore(store),
        budget=PromptBudget(rows=8, max_scores=40),
    )


def test_finds_better_instructions_within_the_budget_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    models = Promptable()
    model = prompted(models, MemoryStore())

    model.prepare()

    assert model.instructions == BETTER
    # The budget is checked between steps, and one step scores the shown rows and all deciding ones.
    assert models.scored <= 40 + 2 * 3 + 4
    assert SEED in models.reflections[0]
    assert "answer t" in models.reflections[0] and "A plain answer." in models.reflections[0]
    printed = capsys.readouterr()
    assert "Report number" not in printed.out + printed.err


def test_answers_and_scores_with_the_instructions_after_the_system_prompt() -> None:
    models = Promptable()
    model = prompted(models, MemoryStore())
    model.prepare()
    assert model.answer(TRAIN[0], SamplingDefaults()).text == "A plain answer."
    assert model.score(TRAIN[0], "anything") == Score(-1.0, 2)


def test_a_later_evaluation_takes_the_stored_instructions() -> None:
    store = MemoryStore()
    first = prompted(Promptable(), store)
    first.prepare()
    models = Promptable()
    later = prompted(models, store)
    later.prepare()
    assert (later.instructions, later.key, models.scored) == (first.instructions, first.key, 0)


def test_other_guidelines_are_another_search() -> None:
    first, second = prompted(Promptable(), MemoryStore()), prompted(Promptable(), MemoryStore(), seed="Be brief.")
    assert first.key != second.key
    assert max(len(first.key), len(second.key)) <= 200


def test_a_model_that_does_not_answer_is_asked_again_later() -> None:
    with pytest.raises(Unavailable):
        prompted(Promptable(down=True), MemoryStore()).prepare()


def test_a_reflection_model_that_fails_ends_the_search_with_its_error() -> None:
    models = Promptable(reflection_error=Unavailable(Reason.NO_MODEL_READY, "Loading."))
    with pytest.raises(Unavailable, match="Loading"):
        prompted(models, MemoryStore()).prepare()
    assert models.scored < 20


def test_a_reflection_prompt_that_does_not_fit_leaves_out_the_model() -> None:
    models = Promptable(reflection_error=InvalidArgument(Reason.PROMPT_TOO_LONG, "3,000 tokens."))
    with pytest.raises(FailedPrecondition, match="3,000 tokens"):
        prompted(models, MemoryStore()).prepare()


def test_instructions_without_room_for_the_reference_score_0_and_a_row_then_has_its_own_prompt() -> None:
    models = SmallModels(words=8)
    task = PromptTask(models, SamplingDefaults())
    asked = row("h1", "Report now")
    assert task.score("Many words of instructions occur in this prompt.", asked) == 0.0
    assert task.score("Brief.", asked) > 0.0
    model = prompted(models, MemoryStore(), seed="Many words of guidelines occur in this prompt.")
    model.store.save(model.key.removeprefix("prompt:"), OptimizedPrompt("Many words occur in this very prompt.", ()))
    model.prepare()
    model.answer(asked, SamplingDefaults())
    assert models.asked == [asked.messages]
    assert model.notes["rows without room for the instructions"] == 1


def test_without_train_rows_it_cannot_be_measured() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        prompted(Promptable(), MemoryStore(), rows=[]).prepare()
    assert caught.value.reason == Reason.NO_TRAIN_ROWS


def test_without_gepa_it_cannot_be_measured_and_the_reason_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FailedPrecondition, match="extra `prompt`"):
        prompted(Promptable(), MemoryStore()).prepare()


def test_an_erasure_deletes_what_was_optimised_on_the_document() -> None:
    store = MemoryStore()
    model = prompted(Promptable(), store, [row(f"t{n}", f"Report {n}", documents=(f"doc_{n}",)) for n in range(4)])
    model.prepare()
    assert model.notes == {"instructions": BETTER, "document_ids": ["doc_0", "doc_1", "doc_2", "doc_3"]}
    prompts = PromptStore(store)
    assert (prompts.delete("doc_9"), prompts.delete("doc_2"), prompts.delete("doc_2")) == (0, 1, 0)
