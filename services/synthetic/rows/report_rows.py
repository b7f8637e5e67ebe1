"""Rows that teach to write: the next part of a document, the whole, one section, and a specialist's own tasks."""

from collections.abc import Sequence

from services.synthetic.rows.budget import RowBudget, RowDraft
from services.synthetic.rows.parts import Compose, DocumentPart
from services.synthetic.rows.pieces import join_pieces
from services.synthetic.rows.prompts import Prompts
from services.synthetic.rows.sections import Section, SourceText
from services.synthetic.rows.tables import is_figures, list_records
from tailor.values import OwnTask

REPORT, SECTION, BOARD_SUMMARY = "report", "section", "board_summary"
# Words in titles, headings and labels that name a summary.
SUMMARIES = (
    "summary",
    "zusammenfassung",
    "kurzfassung",
    "synthèse",
    "résumé",
    "resumen",
    "sumario",
    "abstract",
    "in brief",
    "auf einen blick",
)
# An answer of the whole may take this share of the room, so that its facts have room too.
WHOLE_SHARE, SOURCE_SHARE = 0.55, 0.6
MIN_HEADINGS, MIN_SUMMARY_WORDS = 3, 20


def report_part(prompts: Prompts, task: str = REPORT) -> Compose:
    """Composes rows of what is written next: from the outline and the text so far."""

    def compose(part: DocumentPart, level: int) -> RowDraft:
        blocks = {"outline": prompts.outline(part)} if level < 2 else {}
        if level < 1:
            blocks["so_far"] = prompts.so_far(part)
        return _write(task, prompts, part, prompts.assemble(_request(prompts, part), **blocks))

    return compose


def section_part(prompts: Prompts) -> Compose:
    """Composes rows of one section by itself."""
    return lambda part, level: _write(SECTION, prompts, part, _request(prompts, part, SECTION))


def own_part(prompts: Prompts, task: OwnTask) -> Compose:
    """Composes rows of a specialist's own task: its instruction, then the document and section that the answer is for."""

    def compose(part: DocumentPart, level: int) -> RowDraft:
        lines = [task.instruction, prompts.source.name, *([part.heading] if level < 1 and part.heading else [])]
        return _write(task.name, prompts, part, "\n".join(lines))

    return compose


def whole_part(prompts: Prompts, task: str) -> Compose:
    """Composes the row of a text that is a single part: the whole from its facts; what does not fit is asked as a part."""
    by_part = report_part(prompts, task)

    def compose(part: DocumentPart, level: int) -> RowDraft:
        if len(part.pieces) < len(prompts.source.pieces):
            return by_part(part, level)
        return _write(task, prompts, part, prompts.ask("whole" if task == REPORT else task, "whole"))

    return compose


def whole_draft(prompts: Prompts, task: str) -> RowDraft | None:
    """From the brief to the whole, if that may fit."""
    whole = DocumentPart(prompts.source.name, prompts.source.pieces)
    if prompts.budget.estimate(whole.text) > WHOLE_SHARE * prompts.budget.room:
        return None
    return _write(task, prompts, whole, prompts.ask("whole" if task == REPORT else task, "whole"))


def summary_draft(prompts: Prompts) -> RowDraft | None:
    """A summary that occurs in the document, from the rest of the document or, if that is too long, from its facts."""
    sections = prompts.source.sections
    summary = next((section for section in sections if is_summary(section.heading) and section.body), None)
    rest = [section for section in sections if section is not summary]
    if summary is None or not any(section.body for section in rest):
        return None
    part = DocumentPart(summary.heading, summary.body)
    if len(part.text.split()) < MIN_SUMMARY_WORDS:
        return None
    return _write(
        BOARD_SUMMARY,
        prompts,
        part,
        prompts.assemble(prompts.ask(BOARD_SUMMARY), passage=_source_text(rest, prompts.budget)),
    )


def is_summary(name: str) -> bool:
    """True if a title, heading or label names a summary."""
    text = name.lower()
    return any(word in text for word in SUMMARIES)


def main_task(source: SourceText) -> str:
    """The task that the whole of a document teaches."""
    labels = source.document.labels
    is_board_summary = any(map(is_summary, (source.title, labels.source, labels.department, labels.confidentiality)))
    return BOARD_SUMMARY if is_board_summary else REPORT


def _source_text(sections: Sequence[Section], budget: RowBudget) -> str:
    text = join_pieces(piece for section in sections for piece in section.pieces)
    return text if budget.estimate(text) <= SOURCE_SHARE * budget.room else ""


def _request(prompts: Prompts, part: DocumentPart, task: str = REPORT) -> str:
    name = "section" if part.heading and part.is_opening else "next"
    request = prompts.ask(name, task, part.start, heading=part.heading)
    # The heading of a section's later parts: above all, what they continue.
    return request if part.is_opening or not part.heading else f"{request}\n\n{part.heading}"


def _write(task: str, prompts: Prompts, part: DocumentPart, prompt: str) -> RowDraft:
    if is_figures(part.pieces):
        # Figures repeat, so a list of values would not say where each belongs.
        request = prompts.add_facts(prompt, list_records(part.pieces))
    else:
        request = prompts.mend(prompt, part.runs, part.text)
    return RowDraft(task, (("user", request), ("assistant", part.text)), part.places)
