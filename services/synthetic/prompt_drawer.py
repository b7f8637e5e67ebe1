"""Draws prompts of train rows for experts, and has the specialist answer them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.synthetic.adapters.drawn_prompts import SqlDrawnPrompts
from services.synthetic.browsing import RowBrowser, RowFile
from services.synthetic.domain import CRITIQUE, DrawnPrompt, Specialist, find_specialist, fingerprint
from services.synthetic.ports import AnswerPrompt, CountWaiting
from services.synthetic.rows.people_rows import DELIVERABLE
from services.synthetic.views import DatasetQuery, RowFilter, StoredRow
from tailor.datasets import TRAIN, DatasetFile
from tailor.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Reason, ResourceExhausted
from tailor.logging import get_logger

log = get_logger(__name__)

# Their prompts were sent by callers, who got drafts of them.
CALLERS_TASKS = frozenset({CRITIQUE, DELIVERABLE})
IMPORT = "import:"
# Inference and events name at most this many documents of a draft.
MAX_DOCUMENTS = 64
# Rows that one call reads while it looks for a prompt that was not drawn yet.
MAX_SCANNED_ROWS = 50_000
# Prompts that one call passes on, because the specialist cannot answer those before.
ATTEMPTS = 3


@dataclass(frozen=True)
class PromptDrawer:
    """Draws prompts. Thread-safe."""

    specialists: Mapping[str, Specialist]
    browser: RowBrowser
    prompts: SqlDrawnPrompts
    count_waiting: CountWaiting
    answer: AnswerPrompt

    def draw(self, name: str) -> str:
        """Draw a prompt and have it answered; returns the draft's id. Blocks until the answer is written.

        Only one is drawn at a time for a specialist, by all replicas together. Raises NotFound (UNKNOWN_SPECIALIST), FailedPrecondition
        (PROMPTS_NOT_DRAWN, NO_DATASET, NO_ADAPTER, NO_PROMPT_LEFT), ResourceExhausted (ENOUGH_PROMPTS_WAIT), Aborted (DRAWING_RUNNING).
        """
        specialist = self._find(name)
        with self.prompts.drawing(name) as is_held:
            if not is_held:
                raise Aborted(Reason.DRAWING_RUNNING, "Another prompt is being drawn. Wait until it is answered.")
            self._require_room(name)
            for _ in range(ATTEMPTS):
                draft_id = self._draw_next(specialist)
                if draft_id:
                    return draft_id
        raise FailedPrecondition(
            Reason.NO_PROMPT_LEFT,
            f"The specialist could not answer {ATTEMPTS} drawn prompts, probably because they are too long. Try again to draw others.",
        )

    def _draw_next(self, specialist: Specialist) -> str:
        """The draft's id; empty if the prompt cannot be answered. It is not drawn again."""
        prompt = self._choose(specialist)
        try:
            draft_id = self.answer(specialist.name, prompt)
        except InvalidArgument as error:
            log.warning("drawn prompt not answered", specialist=specialist.name, reason=error.reason)
            draft_id = ""
        self.prompts.keep(specialist.name, prompt)
        return draft_id

    def _find(self, name: str) -> Specialist:
        specialist = find_specialist(self.specialists, name)
        if not (specialist.keep_drafts and specialist.draw_prompts):
            raise FailedPrecondition(
                Reason.PROMPTS_NOT_DRAWN,
                "No prompts are drawn for this specialist. Have an operator set `keep_drafts`, and `draw_prompts` in `[judging]`.",
            )
        return specialist

    def _require_room(self, name: str) -> None:
        waiting, max_waiting = self.count_waiting(name)
        if waiting >= max_waiting:
            raise ResourceExhausted(
                Reason.ENOUGH_PROMPTS_WAIT, f"{waiting} drawn prompts wait for experts. Judge some of them first."
            )

    def _choose(self, specialist: Specialist) -> DrawnPrompt:
        drawn = self.prompts.count(specialist.name)
        for prompts in self._read(specialist, drawn):
            prompt = self._choose_new(specialist.name, prompts)
            if prompt is not None:
                return prompt
        raise FailedPrecondition(
            Reason.NO_PROMPT_LEFT,
            f"All prompts of the newest dataset were drawn ({drawn} so far). Publish more documents, and build a dataset.",
        )

    def _choose_new(self, name: str, prompts: Sequence[DrawnPrompt]) -> DrawnPrompt | None:
        """A prompt that was never drawn: of the document, then of the task, with the fewest draws; the rest is chance."""
        known = self.prompts.find_drawn(name, [prompt.digest for prompt in prompts])
        new = [prompt for prompt in prompts if prompt.digest not in known]
        documents = self.prompts.count_documents(name, sorted({key for prompt in new for key in prompt.document_ids}))
        tasks = self.prompts.count_tasks(name)

        def order(prompt: DrawnPrompt) -> tuple[int, int, str]:
            draws = max(documents.get(key, 0) for key in prompt.document_ids)
            return draws, tasks.get(prompt.task, 0), fingerprint("draw", name, prompt.digest)

        return min(new, key=order, default=None)

    def _read(self, specialist: Specialist, drawn: int) -> Iterator[list[DrawnPrompt]]:
        """Prompts of the newest dataset's train rows, a row group at a time, in an order that differs from draw to draw."""
        try:
            dataset = self.browser.find(DatasetQuery(specialist.name), lambda _: True)
            files = self.browser.manifest(dataset).split(TRAIN).files
        except NotFound:
            raise FailedPrecondition(
                Reason.NO_DATASET,
                "The specialist has no dataset of documents yet, so no prompt can be drawn. Build it with `tailor build NAME`.",
            ) from None
        scanned = 0
        for file in sorted(files, key=lambda file: fingerprint("file", specialist.name, drawn, file.ref.key)):
            for rows in self._read_file(file, drawn):
                yield [prompt for row in rows if (prompt := to_prompt(row)) is not None and self._is_known(prompt)]
                scanned += len(rows)
                if scanned >= MAX_SCANNED_ROWS:
                    return

    def _read_file(self, file: DatasetFile, drawn: int) -> Iterator[list[StoredRow]]:
        with self.browser.open(file) as rows:
            groups = range(len(rows.group_rows))
            for group in sorted(groups, key=lambda group: fingerprint("group", drawn, file.ref.key, group)):
                yield _read_group(rows, group)

    def _is_known(self, prompt: DrawnPrompt) -> bool:
        return not any(document_id in self.browser.erased for document_id in prompt.document_ids)


def to_prompt(row: StoredRow) -> DrawnPrompt | None:
    """The prompt of a row, without the specialist's own system prompt; None if a caller sent it, or no erasure could find it."""
    if row.task in CALLERS_TASKS or not 1 <= len(row.document_ids) <= MAX_DOCUMENTS:
        return None
    messages = row.messages[:-1]
    if messages and messages[0][0] == "system" and not row.made_by.startswith(IMPORT):
        messages = messages[1:]
    if not messages or messages[-1][0] != "user":
        return None
    return DrawnPrompt(fingerprint("prompt", messages), row.task, row.document_ids, messages)


def _read_group(rows: RowFile, group: int) -> list[StoredRow]:
    return [row for _, row in rows.rows(group, 0, RowFilter(split=TRAIN))]
