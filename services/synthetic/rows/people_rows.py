"""Rows that people wrote, word for word: examples, and deliverables as the answer to their draft's chat."""

from collections.abc import Sequence

from services.synthetic.domain import Conversation, Document, Grounding, Specialist, Text
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.budget import Budget, Counted, Draft, Message, make_budget
from services.synthetic.rows.parts import Compose, Part, fit_parts, plan_parts
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import Source, read_source

EXAMPLE, DELIVERABLE = "example", "deliverable"


def example_drafts(
    document: Document, text: Text, specialist: Specialist, counter: TokenCounter
) -> tuple[Source, list[Counted], list[Part]]:
    """A person's prompt and answer; consecutive rows if the answer does not fit one."""
    return _written(EXAMPLE, document, text, [("user", text.prompt or "")], specialist, counter)


def deliverable_drafts(
    document: Document, text: Text, draft: Conversation, specialist: Specialist, counter: TokenCounter
) -> tuple[Source, list[Counted], list[Part]]:
    """The finished text as the answer to its draft's chat; consecutive rows if it does not fit one."""
    return _written(DELIVERABLE, document, text, draft.messages, specialist, counter)


def _written(
    task: str, document: Document, text: Text, chat: Sequence[Message], specialist: Specialist, counter: TokenCounter
) -> tuple[Source, list[Counted], list[Part]]:
    source = read_source(document, text)
    budget = make_budget(specialist, counter, text.text)
    whole = _verbatim(task, text.text, chat, source)
    if not source.pieces:
        return source, [], []
    (counted,) = budget.count([whole])
    if counted.tokens <= budget.limit:
        return source, [counted], []
    fitting, refused = fit_parts(plan_parts(source.sections, budget), _consecutive(task, chat, source, budget), budget)
    return source, fitting, refused


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
