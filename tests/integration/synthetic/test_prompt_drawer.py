"""Which prompts are drawn for experts: never twice, never a held-out one, spread over documents and tasks, within limits."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine

from services.synthetic import prompt_drawer
from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.domain import DrawnPrompt, Specialist
from services.synthetic.prompt_drawer import ATTEMPTS, MAX_DOCUMENTS, PromptDrawer, to_prompt
from services.synthetic.views import StoredRow
from tailor.errors import FailedPrecondition, InvalidArgument, Reason, TailorError
from tailor.values import DatasetKind
from tests.integration.synthetic.test_rows_listed import SFT, World, sft

pytestmark = pytest.mark.integration

SPECIALIST = Specialist("reports", 1, "tiny", "lora", keep_drafts=True)
SYSTEM = ("system", "House style.")


def record(number: int, document: str, task: str) -> dict[str, Any]:
    messages = (SYSTEM, ("user", f"Write {number}."), ("assistant", f"Answer {number}."))
    chat = [{"role": role, "content": content} for role, content in messages]
    values = {"document_ids": [document], "task": task, "messages": chat, "made_by": "structure"}
    return sft(number) | values


class Answers:
    """A specialist that answers prompts; those with a word of `refused` are too long."""

    def __init__(self) -> None:
        self.asked: list[DrawnPrompt] = []
        self.refused = ""
        self.error: TailorError | None = None

    def __call__(self, specialist: str, prompt: DrawnPrompt) -> str:
        if self.error is not None:
            raise self.error
        self.asked.append(prompt)
        if self.refused and self.refused in prompt.messages[-1][1]:
            raise InvalidArgument(Reason.PROMPT_TOO_LONG, "The prompt is too long. Shorten it.")
        return f"drf_{len(self.asked)}"


class House:
    """A drawer over a dataset of 3 train documents with 4 rows each in 2 files, and held-out rows of another document."""

    def __init__(self, engine: Engine) -> None:
        self.world, self.answers, self.waiting = World(engine), Answers(), 0
        self.prompts = SqlDrawnPrompts(engine)
        self.world.erased.add("doc_erased")
        records = [record(n, f"doc_{n // 4}", ("section", "answer")[n % 2]) for n in range(14)]
        gone = record(99, "doc_erased", "section")
        train = [self.world.put(records[:8], SFT, 4), self.world.put([*records[8:12], gone], SFT, 4)]
        self.world.add("reports", DatasetKind.SFT, train, [self.world.put(records[12:], SFT)])

    def draw(self, times: int, specialist: Specialist = SPECIALIST) -> list[DrawnPrompt]:
        drawer = PromptDrawer(
            {specialist.name: specialist},
            self.world.browser,
            self.prompts,
            lambda name: (self.waiting, 10),
            self.answers,
        )
        for _ in range(times):
            drawer.draw("reports")
        return self.answers.asked[-times:]

    def refuse(self, specialist: Specialist = SPECIALIST) -> Reason:
        with pytest.raises(TailorError) as refused:
            self.draw(1, specialist)
        return refused.value.reason


@pytest.fixture
def house(engine: Engine) -> House:
    return House(engine)


def test_every_train_prompt_is_drawn_once_in_an_order_that_is_not_the_datasets(house: House) -> None:
    drawn = house.draw(12)
    assert {prompt.messages for prompt in drawn} == {(("user", f"Write {number}."),) for number in range(12)}
    assert {prompt.document_ids for prompt in drawn} == {("doc_0",), ("doc_1",), ("doc_2",)}
    assert [prompt.messages for prompt in drawn] != sorted(prompt.messages for prompt in drawn)
    # Files and row groups take turns by chance, so that no document waits for all prompts of another one.
    assert len({prompt.document_ids for prompt in drawn[:6]}) > 1
    assert house.refuse() == Reason.NO_PROMPT_LEFT and len(house.answers.asked) == 12


def test_documents_and_tasks_of_a_row_group_are_drawn_from_evenly(house: House) -> None:
    records = [record(4 * n + part, f"doc_{n}", ("section", "answer")[part % 2]) for n in range(6) for part in range(4)]
    house.world.add("others", DatasetKind.SFT, [house.world.put(records, SFT, 24)], [])
    drawer = PromptDrawer(
        {"others": replace(SPECIALIST, name="others")},
        house.world.browser,
        house.prompts,
        lambda _: (0, 9),
        house.answers,
    )
    for share in (1, 2):
        for _ in range(6):
            drawer.draw("others")
        assert len({prompt.document_ids for prompt in house.answers.asked[-6:]}) == 6
        tasks = Counter(prompt.task for prompt in house.answers.asked)
        assert tasks == {"section": 3 * share, "answer": 3 * share}


def test_prompts_of_callers_and_rows_that_an_erasure_could_not_find_are_not_drawn() -> None:
    chat = (SYSTEM, ("user", "Write 1."), ("assistant", "Answer 1."))
    usable = StoredRow("row_1", "section", ("doc_1",), chat, made_by="structure")
    prompt, imported = to_prompt(usable), to_prompt(replace(usable, made_by="import:chat"))
    assert prompt is not None and imported is not None
    # Only an imported row keeps its system prompt.
    assert (prompt.messages, imported.messages) == ((("user", "Write 1."),), (SYSTEM, ("user", "Write 1.")))
    for task in ("deliverable", "critique"):
        assert to_prompt(replace(usable, task=task)) is None
    for ids in ((), tuple(map(str, range(MAX_DOCUMENTS + 1)))):
        assert to_prompt(replace(usable, document_ids=ids)) is None
    assert to_prompt(replace(usable, messages=(SYSTEM, ("assistant", "Answer.")))) is None


def test_refuses_to_draw_and_says_why(house: House) -> None:
    assert house.refuse(replace(SPECIALIST, keep_drafts=False)) == Reason.PROMPTS_NOT_DRAWN
    assert house.refuse(replace(SPECIALIST, draw_prompts=False)) == Reason.PROMPTS_NOT_DRAWN
    assert house.refuse(replace(SPECIALIST, name="others")) == Reason.UNKNOWN_SPECIALIST
    with house.prompts.drawing("reports"):
        assert house.refuse() == Reason.DRAWING_RUNNING
    house.waiting = 10
    assert house.refuse() == Reason.ENOUGH_PROMPTS_WAIT and not house.answers.asked


def test_a_prompt_that_cannot_be_answered_is_passed_over_and_one_whose_answer_failed_is_drawn_again(
    house: House,
) -> None:
    house.answers.error = FailedPrecondition(Reason.NO_ADAPTER, "The specialist has no adapter yet. Wait.")
    assert house.refuse() == Reason.NO_ADAPTER and house.prompts.count("reports") == 0
    house.answers.error, house.answers.refused = None, "Write"
    assert house.refuse() == Reason.NO_PROMPT_LEFT and house.prompts.count("reports") == ATTEMPTS
    house.answers.refused = ""
    house.draw(1)
    assert len({prompt.digest for prompt in house.answers.asked}) == ATTEMPTS + 1


def test_one_call_reads_a_limited_number_of_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_drawer, "MAX_SCANNED_ROWS", 4)
    with pytest.raises(FailedPrecondition):
        house.draw(13)
    assert 4 <= house.prompts.count("reports") <= 12
