"""Rows that people wrote, word for word: examples, and deliverables as the answer to their draft's chat."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.synthetic.domain import Conversation, Grounding, Specialist
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.budget import Budget, Counted, Draft, Message, make_budget
from services.synthetic.rows.parts import Compose, Part, fit_parts, plan_parts
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import Source

EXAMPLE, DELIVERABLE = "example", "deliverable"


@dataclass(frozen=True)
class Written:
    """Rows of a text that a person wrote, and the parts that do not fit."""

    fitting: tuple[Counted, ...] = ()
    refused: tuple[Part, ...] = ()


def make_example(source: Source, prompt: str, specialist: Specialist, counter: TokenCounter) -> Written:
    """A person's prompt and answer; consecutive rows if the answer does not fit one. Nothing without a prompt."""
    return (
        _written(EXAMPLE, source, [("user", prompt)], make_budget(specialist, counter, source.reading.text))
        if prompt
        else Written()
    )


def make_deliverable(source: Source, draft: Conversation, specialist: Specialist, counter: TokenCounter) -> Written:
    """The finished text as the answer to its draft's chat; consecutive rows if it does not fit one."""
    return _written(DELIVERABLE, source, draft.messages, make_budget(specialist, counter, source.reading.text))


def _written(task: str, source: Source, chat: Sequence[Message], budget: Budget) -> Written:
    if not source.pieces:
        return Written()
    (counted,) = budget.count([_verbatim(task, source.reading.text, chat, source)])
    if counted.tokens <= budget.limit:
        return Written((counted,))
    compose = _consecutive(task, chat, source, budget)
    fitting, refused = fit_parts(plan_parts(source.sections, budget), compose, budget)
    return Written(tuple(fitting), tuple(refused))


def _verbatim(task: str, text: str, chat: Sequence[Message], source: Source) -> Draft:
    places = tuple(place for piece in source.pieces for place in piece.places)
    return Draft(task, (*chat, ("assistant", text.strip())), places, Grounding.PEOPLE, "human")


def _consecutive(task: str, chat: Sequence[Message], source: Source, budget: Budget) -> Compose:
    """Composes the parts of a long answer: each after the chat and the end of the part before."""
    prompts = Prompts(source, budget)

    def compose(part: Part, level: int) -> Draft:
        *earlier, (role, prompt) = chat
        so_far = prompts.so_far(part) if level < 1 else ""
        asked = prompts.assemble(prompt, so_far=so_far)
        messages = (*earlier, (role, asked), ("assistant", part.text))
        return Draft(task, messages, part.places, Grounding.PEOPLE, "human")

    return compose
