"""The baseline `few_shot`: which examples it chooses, how they occur in the prompt, and what happens if they do not fit."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import pytest

from services.evaluation.baselines.examples import choose_examples
from services.evaluation.baselines.few_shot import FewShotModel
from services.evaluation.baselines.prompts import with_examples
from services.evaluation.baselines.train_data import TrainData
from services.evaluation.domain import Answer, HeldOutRow, LoadedCandidate, Score
from services.evaluation.ports import Batches, Models, OpenTrainRows
from tailor.errors import InvalidArgument, Reason
from tailor.storage.ref import Ref
from tailor.values import SamplingDefaults

MANIFEST = Ref("s3://datasets/d/manifest.json", "d", 1)
SAMPLING = SamplingDefaults(max_tokens=9)


def row(row_id: str, prompt: str, task: str = "report", documents: tuple[str, ...] = ()) -> HeldOutRow:
    return HeldOutRow(row_id, task, documents, (("system", "House."), ("user", prompt)), f"answer {row_id}")


TRAIN = [
    row("t1", "Report on the ferry terminal and its ledger"),
    row("t2", "Report on the turbine hall"),
    row("t3", "Report on the ferry"),
    row("t4", "Report on the ferry", documents=("doc_gone",)),
    row("t5", "Summarise the ferry terminal ledger", "summary"),
]


def batches(rows: Sequence[HeldOutRow]) -> Batches:
    return lambda: (rows[start : start + 2] for start in range(0, len(rows), 2))


def opener(rows: Sequence[HeldOutRow]) -> OpenTrainRows:
    """Opens datasets that all have these rows."""
    return lambda manifests: nullcontext(batches([*rows] * len(manifests)))


class SmallModels(Models):
    """A context of `words` words; remembers the prompts that it answered."""

    def __init__(self, words: int = 1000) -> None:
        self.words = words
        self.asked: list[tuple[tuple[str, str], ...]] = []
        self.sampling: list[SamplingDefaults] = []
        self.scored = 0

    def load(self, adapter_digest: str, manifest: Ref) -> LoadedCandidate:
        raise NotImplementedError

    def generate(self, model: str, messages: Sequence[tuple[str, str]], sampling: SamplingDefaults) -> Answer:
        assert model == "base"
        self.asked.append(tuple(messages))
        self.sampling.append(sampling)
        return Answer("text")

    def score(self, model: str, messages: Sequence[tuple[str, str]], completion: str) -> Score:
        self.scored += 1
        words = sum(len(content.split()) for _, content in messages) + len(completion.split())
        if words > self.words:
            raise InvalidArgument(Reason.ROW_TOO_LONG, "Too long.")
        return Score(-float(words), 2)


def few_shot(models: Models, asked: HeldOutRow, count: int = 2, guidelines: str = "") -> FewShotModel:
    data = TrainData(opener(TRAIN), {"d1": MANIFEST}, frozenset({"doc_gone"}))
    model = FewShotModel(models, "tiny", data, [asked], count, guidelines)
    model.prepare()
    return model


def test_chooses_the_most_similar_rows_of_the_same_task_without_erased_documents() -> None:
    asked = row("h1", "Report on the ferry terminal")
    chosen = choose_examples(batches(TRAIN), [asked], 5, {"doc_gone"})["h1"]
    assert [example.row_id for example in chosen] == ["t3", "t1", "t2"]


def test_the_choice_does_not_depend_on_the_order_of_the_rows() -> None:
    asked = [row("h1", "Report on the ferry terminal"), row("h2", "Report on nothing that occurs")]
    same = [row(f"s{number}", "Report on the ferry") for number in range(5)]
    first = choose_examples(batches(same), asked, 3)
    assert choose_examples(batches(same[::-1]), asked[::-1], 3) == first
    assert [example.row_id for example in first["h1"]] == ["s0", "s1", "s2"]


def test_a_task_without_train_rows_gets_examples_of_any_task() -> None:
    asked = row("h1", "Summarise the ferry terminal ledger for the board", "test")
    chosen = choose_examples(batches(TRAIN), [asked], 1, {"doc_gone"})["h1"]
    assert [example.row_id for example in chosen] == ["t5"]


def test_without_train_rows_there_are_no_examples() -> None:
    assert choose_examples(batches([]), [row("h1", "Report")], 3) == {"h1": ()}


def test_the_prompt_has_guidelines_and_the_examples_as_turns_with_the_most_similar_last() -> None:
    prompt = with_examples(row("h1", "Now"), "Be brief.", [row("t1", "one"), row("t2", "two")])
    assert prompt == (
        ("system", "House.\n\nBe brief."),
        ("user", "two"),
        ("assistant", "answer t2"),
        ("user", "one"),
        ("assistant", "answer t1"),
        ("user", "Now"),
    )


def test_guidelines_are_the_system_message_of_a_chat_without_one() -> None:
    plain = HeldOutRow("h", "report", (), (("user", "Now"),), "a")
    assert with_examples(plain, "Be brief.", []) == (("system", "Be brief."), ("user", "Now"))
    assert with_examples(plain, "", []) == (("user", "Now"),)


def test_answers_and_scores_see_the_same_prompt_and_the_reference_is_scored_once() -> None:
    models, asked = SmallModels(), row("h1", "Report on the ferry terminal")
    model = few_shot(models, asked)

    model.answer(asked, SAMPLING)
    score = model.score(asked, asked.reference)

    assert models.asked[0][-3:] == (("user", "Report on the ferry"), ("assistant", "answer t3"), asked.messages[-1])
    assert (models.sampling, models.scored) == ([SAMPLING], 1)
    assert score == Score(-float(sum(len(content.split()) for _, content in models.asked[0]) + 2), 2)
    assert model.score(asked, "another answer here") == Score(-25.0, 2)


def test_drops_the_least_similar_examples_until_the_reference_fits() -> None:
    models, asked = SmallModels(words=15), row("h1", "Report on the ferry terminal")
    model = few_shot(models, asked)

    model.answer(asked, SAMPLING)

    assert models.asked == [(asked.messages[0], *TRAIN[2].messages[1:], ("assistant", "answer t3"), asked.messages[1])]
    assert model.notes["rows by examples"] == {"1": 1}


def test_a_prompt_without_room_for_guidelines_is_that_of_the_base() -> None:
    models, asked = SmallModels(words=8), row("h1", "Report on the ferry terminal")
    model = few_shot(models, asked, guidelines="Many words of guidelines stand here.")

    model.answer(asked, SAMPLING)

    assert (models.asked, model.notes["rows by examples"]) == ([asked.messages], {"0": 1})


def test_the_key_names_what_decides_the_answers() -> None:
    asked = row("h1", "Report")
    keys = [
        few_shot(SmallModels(), asked, count, guidelines).key for count, guidelines in ((2, ""), (3, ""), (2, "Brief."))
    ]
    assert len({*keys}) == 3
    assert all(len(key) <= 200 for key in keys)
    assert few_shot(SmallModels(), asked).key == keys[0]


def test_names_the_documents_of_its_examples() -> None:
    rows = [row("t1", "Report", documents=("doc_b", "doc_a")), row("t2", "Report", "summary", ("doc_c",))]
    asked = row("h1", "Report")
    model = FewShotModel(SmallModels(), "tiny", TrainData(opener(rows), {"d1": MANIFEST}), [asked], 3, "")
    model.prepare()
    assert model.notes["document_ids"] == ["doc_a", "doc_b"]


def test_the_train_rows_are_read_once() -> None:
    model = few_shot(SmallModels(), row("h1", "Report"))
    model.data = replace(model.data, open_rows=lambda manifests: pytest.fail("read again"))
    model.prepare()
