"""The tokens that a row may have, by the tokenizer of the specialist's base."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from services.synthetic.domain import Grounding, Range, Row, Specialist
from services.synthetic.ports import TokenCounter

Message = tuple[str, str]


@dataclass(frozen=True)
class RowDraft:
    """A row without its document. The last `turns` messages of the assistant are its answers.

    `tokens` are those of the whole row, `answer_tokens` those of its answers, once they are counted.
    """

    task: str
    messages: tuple[Message, ...]
    places: tuple[Range, ...] = ()
    grounding: Grounding = Grounding.YES
    made_by: str = "structure"
    turns: int = 1
    tokens: int = 0
    answer_tokens: int = 0

    @property
    def answer(self) -> str:
        """The last message."""
        return self.messages[-1][1]

    @property
    def answer_characters(self) -> int:
        """The characters of all its answers."""
        return sum(len(content) for _, content in self.messages[::-2][: self.turns])


@dataclass(frozen=True)
class RowBudget:
    """A specialist's budget for rows from one text. `density` is the text's tokens per character.

    `system_tokens` are those of the system prompt; None without one.
    """

    counter: TokenCounter
    limit: int
    system_tokens: int | None
    density: float

    @property
    def room(self) -> int:
        """Tokens for one prompt and its answer."""
        return self.limit - self._count_rest(("prompt", "answer"))

    def estimate(self, text: str) -> int:
        """Estimated tokens of a part of the text or of words like it."""
        return int(len(text) * self.density) + 1

    def characters(self, share: float) -> int:
        """The estimated number of characters that fill a share of the room."""
        return int(share * self.room / self.density)

    def count(self, drafts: Sequence[RowDraft]) -> list[RowDraft]:
        """The drafts with their tokens, all counted in one call."""
        counts = iter(self.counter.count([content for draft in drafts for _, content in draft.messages]))
        return [self._count_draft(draft, [next(counts) for _ in draft.messages]) for draft in drafts]

    def _count_draft(self, draft: RowDraft, counts: Sequence[int]) -> RowDraft:
        rest = self._count_rest([content for _, content in draft.messages])
        return replace(draft, tokens=sum(counts) + rest, answer_tokens=sum(counts[::-2][: draft.turns]))

    def _count_rest(self, contents: Sequence[str]) -> int:
        """The tokens of a row without those of its messages."""
        has_system = self.system_tokens is not None
        return (self.system_tokens or 0) + self.counter.template_tokens(contents, has_system=has_system)


def make_budget(specialist: Specialist, counter: TokenCounter, text: str) -> RowBudget:
    """The budget by the specialist's `max_row_tokens`, or else by what its base reads."""
    limit = min(specialist.rows.max_row_tokens or counter.context_tokens, counter.context_tokens)
    system, tokens = counter.count([specialist.system_prompt, text])
    return RowBudget(counter, limit, system if specialist.system_prompt else None, max(tokens, 1) / max(len(text), 1))


def keep_fitting(drafts: Sequence[RowDraft], budget: RowBudget) -> list[RowDraft]:
    """The drafts that fit, counted. The others are views of text that smaller rows teach."""
    return [row for row in budget.count(drafts) if row.tokens <= budget.limit]


def count_tokens(rows: Sequence[Row], counter: TokenCounter) -> Iterator[Row]:
    """The rows with their tokens, those of the chat template included."""
    texts = [[row.system_prompt, *(content for _, content in row.messages)] for row in rows]
    counts = iter(counter.count([text for parts in texts for text in parts]))
    for row, (system, *contents) in zip(rows, texts, strict=True):
        template = counter.template_tokens(contents, has_system=bool(system))
        yield replace(row, tokens=sum(islice(counts, len(contents) + 1)) + template)
