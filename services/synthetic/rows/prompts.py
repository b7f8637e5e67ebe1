"""Prompts in the document's language; without templates, in the document's own words only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.synthetic.rows.budget import RowBudget
from services.synthetic.rows.facts import ValueRun, list_facts
from services.synthetic.rows.parts import DocumentPart
from services.synthetic.rows.sections import SourceText
from services.synthetic.rows.structure import normalize
from services.synthetic.rows.templates import Templates, load_templates

# Shares of the room for the outline and for what was written so far; the most characters of the latter.
CONTEXT_SHARE, MAX_SO_FAR = 0.1, 600
NEIGHBOURS = 6


@dataclass(frozen=True)
class Prompts:
    """Writes the prompts of one document."""

    source: SourceText
    budget: RowBudget

    @cached_property
    def templates(self) -> Templates | None:
        """The wordings of the document's language; None if there are none."""
        return load_templates(self.source.document.language)

    def ask(self, name: str, *key: object, heading: str = "", topic: str = "") -> str:
        """The request by a wording that a hash chooses; without templates, the title, heading or subject itself."""
        title = self.source.name
        if self.templates is None:
            return _plain_request(title, heading, topic)
        key = (self.source.document.document_id, *key)
        return self.templates.draw(name, *key, title=title, heading=heading, topic=topic)

    def assemble(self, request: str, **blocks: str) -> str:
        """The request, followed by the blocks that are not empty, each under its label."""
        parts = [request]
        for name, text in blocks.items():
            if text:
                label = "" if self.templates is None else f"{self.templates.labels[name]}\n"
                parts.append(f"{label}{text}")
        return "\n\n".join(parts)

    def mend(self, prompt: str, runs: Iterable[ValueRun], answer: str) -> str:
        """The prompt with facts for every value and name of the answer that it does not have yet."""
        return self.add_facts(prompt, list_facts(runs, normalize(prompt), len(answer)))

    def add_facts(self, prompt: str, facts: Sequence[str]) -> str:
        """The prompt with a list of facts."""
        return self.assemble(prompt, facts="\n".join(f"- {fact}" for fact in facts))

    def outline(self, part: DocumentPart) -> str:
        """The headings, or those around the part if all of them take too much room."""
        lines = self._headings
        if len(lines) < 2:
            return ""
        if self.budget.estimate("\n".join(line for _, line in lines)) > CONTEXT_SHARE * self.budget.room:
            place = sum(start <= part.start for start, _ in lines)
            lines = lines[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
        text = "\n".join(line for _, line in lines)
        return text if self.budget.estimate(text) <= 2 * CONTEXT_SHARE * self.budget.room else ""

    def so_far(self, part: DocumentPart) -> str:
        """The end of what stands before the part."""
        return self.source.before(part.start, min(MAX_SO_FAR, self.budget.characters(CONTEXT_SHARE)))

    @cached_property
    def _headings(self) -> Sequence[tuple[int, str]]:
        sections = [section for section in self.source.sections if section.title is not None]
        top = min((len(section.headings) for section in sections), default=0)
        return [(section.start, f"{'  ' * (len(section.headings) - top)}- {section.heading}") for section in sections]


def _plain_request(title: str, heading: str, topic: str) -> str:
    if topic:
        return f"{title}: {topic}?"
    return "\n\n".join([f"# {title}", *([f"## {heading}"] if heading and heading != title else [])])
