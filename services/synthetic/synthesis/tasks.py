"""The tasks of a teacher: what it is asked, and how a row is made of its answer."""

from dataclasses import dataclass
from enum import StrEnum

from services.synthetic.domain import Grounding

# Increase it whenever the same synthesis would ask in other words.
PROMPT_VERSION = "2"


class FactSource(StrEnum):
    """Where a row has its facts from: a passage of a seed, or the request itself, for which seeds are examples only."""

    PASSAGE = "passage"
    REQUEST = "request"


@dataclass(frozen=True)
class TeacherTask:
    """A request to a teacher, and how its answer becomes a row. `view` names one of several views of a passage.

    `shows_passage`: the row's prompt ends with the passage. `answers_with_passage`: the passage is the row's answer, and the teacher writes
    the request. `may_be_short` exempts answers from the min length. `quotes`: the answer must occur in the passage word for word.
    """

    name: str
    ask: str
    view: str = ""
    source: FactSource = FactSource.PASSAGE
    rows: int = 1
    grounding: Grounding = Grounding.YES
    shows_passage: bool = True
    answers_with_passage: bool = False
    may_be_short: bool = False
    quotes: bool = False


ANSWER = TeacherTask(
    "answer",
    "Write requests that a colleague might make about the passage, each with its complete answer in the passage's own style and terms. "
    "Do not copy the passage.",
    rows=2,
)
BOARD_SUMMARY = TeacherTask(
    "board_summary",
    "Write a request for a summary of the passage for the board, and as the answer the summary: what matters for a decision, and no more.",
)
REWRITE = TeacherTask(
    "rewrite",
    "The passage is in the company's own style. As the answer, write the same content in plain, generic wording, with every figure, name "
    "and date, but with none of the passage's phrases. As the request, ask to put such a text into the company's style.",
    answers_with_passage=True,
)
TRANSLATION = TeacherTask(
    "translation",
    "As the answer, translate the passage completely, with figures, names and layout unchanged. As the request, ask for this translation.",
)
KNOWLEDGE = (
    TeacherTask(
        "knowledge",
        "Write a request to quote what the passage says about a subject, and as the answer the sentences that say it, word for word.",
        "extract",
        quotes=True,
        may_be_short=True,
    ),
    TeacherTask(
        "knowledge", "Write a request for a detailed summary of the passage, and as the answer the summary.", "summary"
    ),
    TeacherTask(
        "knowledge", "Write a request for the key facts of the passage, and as the answer a list of them.", "facts"
    ),
    TeacherTask("knowledge", "Write questions that the passage answers, each with its answer.", "question", rows=2),
    TeacherTask(
        "knowledge",
        "Write questions that the passage answers and that can be understood without it, because they name what they are about; each with "
        "its complete answer.",
        "closed",
        rows=2,
        grounding=Grounding.CLOSED,
        shows_passage=False,
    ),
    TeacherTask(
        "knowledge",
        "Write a question on the passage's subject that the passage does not answer, and as the answer one sentence which says that the "
        "company's documents do not contain this, and what they do contain instead.",
        "absent",
        may_be_short=True,
    ),
)
NAMED = {task.name: (task,) for task in (ANSWER, BOARD_SUMMARY, REWRITE, TRANSLATION)} | {"knowledge": KNOWLEDGE}


def find_tasks(name: str) -> tuple[TeacherTask, ...]:
    """The views of a task. Any other name is a task of the specialist's own, whose facts occur in the request."""
    own_task = TeacherTask(
        name,
        "Write a new case of the task below: as the request, a complete brief with every fact that the answer needs; as the answer, the "
        "finished text. Invent the facts of the case, but write as the examples do.",
        source=FactSource.REQUEST,
        shows_passage=False,
    )
    return NAMED.get(name, (own_task,))
