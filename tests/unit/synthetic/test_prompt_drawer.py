"""Which prompts are drawn for experts: never twice, never a held-out one, spread over documents and tasks, within limits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from services.synthetic import prompt_drawer
from services.synthetic.domain import DrawnPrompt, Specialist
from services.synthetic.ports import DrawnPrompts
from services.synthetic.prompt_drawer import ATTEMPTS, MAX_DOCUMENTS, PromptDrawer, to_prompt
from services.synthetic.views import StoredRow
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted, TailorError
from tests.unit.synthetic.test_browsing import browser_of

SPECIALIST = Specialist("reports", 1, "tiny", "lora", keep_drafts=True)
SYSTEM = ("system", "House style.")


def row(number: int, document: str, task: str = "section", *, made_by: str = "structure") -> StoredRow:
    messages = (SYSTEM, ("user", f"Write {number}."), ("assistant", f"Answer {number}."))
    return StoredRow(f"row_{number}", task, (document,), messages, made_by=made_by)


@dataclass
class MemoryDrawnPrompts(DrawnPrompts):
    """What was drawn for one specialist."""

    kept: list[DrawnPrompt] = field(default_factory=list)
    busy: bool = False

    @contextmanager
    def drawing(self, specialist: str) -> Iterator[bool]:
        yield not self.busy

    def count(self, specialist: str) -> int:
        return len(self.kept)

    def find_drawn(self, specialist: str, digests: Sequence[str]) -> set[str]:
        return {prompt.digest for prompt in self.kept} & {*digests}

    def count_documents(self, specialist: str, document_ids: Sequence[str]) -> dict[str, int]:
        return Counter(key for prompt in self.kept for key in prompt.document_ids if key in document_ids)

    def count_tasks(self, specialist: str) -> dict[str, int]:
        return Counter(prompt.task for prompt in self.kept)

    def keep(self, specialist: str, prompt: DrawnPrompt) -> None:
        self.kept.append(prompt)


class Answers:
    """A specialist that answers prompts; those with a word of `refused` are too long."""

    def __init__(self) -> None:
        self.asked: list[DrawnPrompt] = []
        self.refused: str = ""
        self.error: TailorError | None = None

    def __call__(self, specialist: str, prompt: DrawnPrompt) -> str:
        if self.error is not None:
            raise self.error
        self.asked.append(prompt)
        if self.refused and self.refused in prompt.messages[-1][1]:
            raise InvalidArgument(Reason.PROMPT_TOO_LONG, "The prompt is too long. Shorten it.")
        return f"drf_{len(self.asked)}"


@dataclass
class World:
    """A drawer over a dataset with 3 documents of 4 rows in 3 row groups of 2 files, and held-out rows of another one."""

    prompts: MemoryDrawnPrompts = field(default_factory=MemoryDrawnPrompts)
    answers: Answers = field(default_factory=Answers)
    waiting: int = 0
    specialist: Specialist = SPECIALIST
    files: dict[str, Sequence[Sequence[StoredRow]]] = field(
        default_factory=lambda: {
            "train-1": [
                [row(0, "doc_0"), row(1, "doc_0", "answer"), row(2, "doc_0"), row(3, "doc_0", "answer")],
                [row(4, "doc_1"), row(5, "doc_1", "answer"), row(6, "doc_1"), row(7, "doc_1", "answer")],
            ],
            "train-2": [[row(8, "doc_2"), row(9, "doc_2", "answer"), row(10, "doc_2"), row(11, "doc_2", "answer")]],
            "held_out-1": [[row(12, "doc_3"), row(13, "doc_3")]],
        }
    )

    def drawer(self) -> PromptDrawer:
        specialists = {self.specialist.name: self.specialist}
        browser = replace(browser_of(self.files), erased={"doc_erased"})
        return PromptDrawer(specialists, browser, self.prompts, lambda name: (self.waiting, 10), self.answers)

    def draw(self, times: int) -> list[DrawnPrompt]:
        for _ in range(times):
            self.drawer().draw("reports")
        return self.prompts.kept[-times:]


def test_every_train_prompt_is_drawn_once_and_no_held_out_one() -> None:
    world = World()
    drawn = world.draw(12)
    assert {prompt.messages for prompt in drawn} == {(("user", f"Write {number}."),) for number in range(12)}
    assert {prompt.document_ids for prompt in drawn} == {("doc_0",), ("doc_1",), ("doc_2",)}
    with pytest.raises(FailedPrecondition) as refused:
        world.draw(1)
    assert refused.value.reason == Reason.NO_PROMPT_LEFT and len(world.answers.asked) == 12


def test_the_same_draws_give_the_same_prompts_in_an_order_that_is_not_the_datasets() -> None:
    first, second = World().draw(12), World().draw(12)
    assert first == second
    assert [prompt.messages for prompt in first] != sorted(prompt.messages for prompt in first)
    # Files and row groups take turns by chance, so that no document waits for all prompts of another one.
    assert len({prompt.document_ids for prompt in first[:6]}) > 1


def test_documents_and_tasks_of_a_row_group_are_drawn_from_evenly() -> None:
    tasks = ("section", "answer")
    rows = [row(4 * number + part, f"doc_{number}", tasks[part % 2]) for number in range(6) for part in range(4)]
    world = World(files={"train-1": [rows]})
    for share in (1, 2):
        drawn = world.draw(6)
        assert len({prompt.document_ids for prompt in drawn}) == 6
        assert Counter(prompt.task for prompt in world.prompts.kept) == {"section": 3 * share, "answer": 3 * share}


def test_prompts_of_callers_and_rows_that_an_erasure_could_not_find_are_not_drawn() -> None:
    usable = row(1, "doc_1")
    assert to_prompt(usable) is not None
    for task in ("deliverable", "critique"):
        assert to_prompt(replace(usable, task=task)) is None
    assert to_prompt(replace(usable, document_ids=())) is None
    assert to_prompt(replace(usable, document_ids=tuple(map(str, range(MAX_DOCUMENTS + 1))))) is None
    assert to_prompt(replace(usable, messages=(SYSTEM, ("assistant", "Answer.")))) is None
    world = World(files={"train-1": [[row(1, "doc_erased"), usable]]})
    assert [prompt.document_ids for prompt in world.draw(1)] == [("doc_1",)]
    with pytest.raises(FailedPrecondition):
        world.draw(1)


def test_only_an_imported_row_keeps_its_system_prompt() -> None:
    prompt, imported = to_prompt(row(1, "doc_1")), to_prompt(row(1, "txt_1", made_by="import:chat"))
    assert prompt and imported
    assert (prompt.messages, imported.messages) == ((("user", "Write 1."),), (SYSTEM, ("user", "Write 1.")))


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World(specialist=replace(SPECIALIST, keep_drafts=False)), Reason.PROMPTS_NOT_DRAWN),
        (World(specialist=replace(SPECIALIST, draw_prompts=False)), Reason.PROMPTS_NOT_DRAWN),
        (World(specialist=replace(SPECIALIST, name="others")), Reason.UNKNOWN_SPECIALIST),
        (World(waiting=10), Reason.ENOUGH_PROMPTS_WAIT),
        (World(prompts=MemoryDrawnPrompts(busy=True)), Reason.DRAWING_RUNNING),
    ],
)
def test_refuses_to_draw_and_says_why(world: World, reason: Reason) -> None:
    with pytest.raises((Aborted, FailedPrecondition, NotFound, ResourceExhausted)) as refused:
        world.draw(1)
    assert refused.value.reason == reason and not world.answers.asked


def test_says_that_there_is_no_dataset() -> None:
    world = World()
    drawer = world.drawer()
    drawer.browser.datasets.dataset = replace(drawer.browser.datasets.dataset, specialist="others")  # type: ignore[attr-defined]
    with pytest.raises(FailedPrecondition) as refused:
        drawer.draw("reports")
    assert refused.value.reason == Reason.NO_DATASET


def test_a_prompt_that_cannot_be_answered_is_passed_over_for_good() -> None:
    (first,) = World().draw(1)
    world = World()
    world.answers.refused = first.messages[-1][1]
    assert world.drawer().draw("reports") == "drf_2"
    assert world.prompts.kept[0] == first and len(world.prompts.kept) == 2
    world.answers.refused = "Write"
    with pytest.raises(FailedPrecondition) as refused:
        world.draw(1)
    assert refused.value.reason == Reason.NO_PROMPT_LEFT and len(world.prompts.kept) == 2 + ATTEMPTS


def test_a_prompt_whose_answer_failed_is_drawn_again() -> None:
    world = World()
    world.answers.error = FailedPrecondition(Reason.NO_ADAPTER, "The specialist has no adapter yet. Wait.")
    with pytest.raises(FailedPrecondition):
        world.draw(1)
    assert not world.prompts.kept


def test_one_call_reads_a_limited_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_drawer, "MAX_SCANNED_ROWS", 4)
    world = World()
    with pytest.raises(FailedPrecondition):
        world.draw(13)
    assert 4 <= len(world.prompts.kept) <= 12
