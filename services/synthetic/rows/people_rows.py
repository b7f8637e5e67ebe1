"""Rows that people wrote, word for word: examples, and deliverables as the answer to their draft's chat."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from services.synthetic.domain import Conversation, Grounding, Specialist
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.budget import Message, RowBudget, RowDraft, make_budget
from services.synthetic.rows.parts import Compose, DocumentPart, fit_parts, plan_parts
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import SourceText

EXAMPLE, DELIVERABLE, TEST = "example", "deliverable", "test"


@dataclass(frozen=True)
class PeopleRows:
    """Rows of a text that a person wrote, and the parts that do not fit."""

    fitting: tuple[RowDraft, ...] = ()
    refused: tuple[DocumentPart, ...] = ()


def make_example(source: SourceText, prompt: str, specialist: Specialist, counter: TokenCounter) -> PeopleRows:
    """A person's prompt and answer; consecutive turns if they do not fit a row. Nothing without a prompt."""
    return (
        _make_people_rows(EXAMPLE, source, [("user", prompt)], make_budget(specialist, counter, source.reading.text))
        if prompt
        else PeopleRows()
    )


def make_test(source: SourceText, prompt: str, specialist: Specialist, counter: TokenCounter) -> PeopleRows:
    """A golden document's prompt and reference as one row. Nothing without a prompt, or if they do not fit a row."""
    if not prompt or not source.pieces:
        return PeopleRows()
    budget = make_budget(specialist, counter, source.reading.text)
    (row,) = budget.count([_verbatim(TEST, source.reading.text, [("user", prompt)], source)])
    return PeopleRows((row,) if row.tokens <= budget.limit else ())


def make_deliverable(
    source: SourceText, draft: Conversation, specialist: Specialist, counter: TokenCounter
) -> PeopleRows:
    """The finished text as the answer to its draft's chat; consecutive turns if it does not fit a row."""
    return _make_people_rows(DELIVERABLE, source, draft.messages, make_budget(specialist, counter, source.reading.text))


def _make_people_rows(task: str, source: SourceText, chat: Sequence[Message], budget: RowBudget) -> PeopleRows:
    if not source.pieces:
        return PeopleRows()
    (row,) = budget.count([_verbatim(task, source.reading.text, chat, source)])
    if row.tokens <= budget.limit:
        return PeopleRows((row,))
    prompts = Prompts(source, budget)
    fitting, refused = fit_parts(plan_parts(source.sections, budget), _compose(task, chat, prompts), budget)
    return PeopleRows(tuple(_join_turns(fitting, prompts)), tuple(refused))


def _verbatim(task: str, text: str, chat: Sequence[Message], source: SourceText) -> RowDraft:
    places = tuple(place for piece in source.pieces for place in piece.places)
    return RowDraft(task, (*chat, ("assistant", text.strip())), places, Grounding.PEOPLE, "human")


def _compose(task: str, chat: Sequence[Message], prompts: Prompts) -> Compose:
    """Composes the parts of a long answer: each after the chat and the end of the part before."""

    def compose(part: DocumentPart, level: int) -> RowDraft:
        *earlier, (role, prompt) = chat
        so_far = prompts.so_far(part) if level < 1 else ""
        asked = prompts.assemble(prompt, so_far=so_far)
        messages = (*earlier, (role, asked), ("assistant", part.text))
        return RowDraft(task, messages, part.places, Grounding.PEOPLE, "human")

    return compose


def _join_turns(parts: Iterable[RowDraft], prompts: Prompts) -> Iterator[RowDraft]:
    """Neighbouring parts as consecutive turns of one chat, as many as fit a row."""
    row: RowDraft | None = None
    for part in parts:
        if row is not None:
            (longer,) = prompts.budget.count([_add_turn(row, part, prompts)])
            if longer.tokens <= prompts.budget.limit:
                row = longer
                continue
            yield row
        row = part
    if row is not None:
        yield row


def _add_turn(draft: RowDraft, part: RowDraft, prompts: Prompts) -> RowDraft:
    """The draft with one more turn: the user asks to go on, and the part answers."""
    asked = prompts.ask("continue", part.task, part.places[0])
    return replace(
        draft,
        messages=(*draft.messages, ("user", asked), part.messages[-1]),
        places=draft.places + part.places,
        turns=draft.turns + 1,
    )
