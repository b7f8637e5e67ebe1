"""Which limits and tasks a specialist's rows may have. Synthetic applies them."""

import re
from collections.abc import Iterator, Sequence

from tailor.values import TASKS, OwnTask, RowPolicy

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MIN_ROW_TOKENS = 64
MAX_PERCENT, MAX_HELD_OUT_PERCENT = 100, 50
MAX_REPLAY_PERCENT = 90
MAX_OWN_TASKS = 20
MAX_INSTRUCTION = 2000
COUNTS = (
    "max_rows_per_document",
    "max_answer_percent",
    "max_train_tokens",
    "min_answer_tokens",
    "max_held_out_rows",
    "critique_tokens_per_month",
)
# Names that rows of judgements have.
RESERVED = ("ranking", "critique")


def find_row_violations(policy: RowPolicy) -> dict[str, str]:
    """Violations by field; empty for a valid policy."""
    violations = (
        *_check_limits(policy),
        *_check_own_tasks(policy.own_tasks),
        *_check_names(policy),
        *_check_replay(policy),
    )
    return {f"rows.{field}": problem for field, problem in violations}


def _check_limits(policy: RowPolicy) -> Iterator[tuple[str, str]]:
    yield from ((name, "must be 0 (the default) or more") for name in COUNTS if getattr(policy, name) < 0)
    if policy.max_row_tokens < MIN_ROW_TOKENS and policy.max_row_tokens:
        yield "max_row_tokens", f"must be 0 (the base's context), or at least {MIN_ROW_TOKENS}"
    elif 0 < policy.max_row_tokens <= policy.min_answer_tokens:
        yield "min_answer_tokens", "must be less than max_row_tokens"
    if not 0 <= policy.held_out_percent <= MAX_HELD_OUT_PERCENT:
        yield "held_out_percent", f"must be 1 to {MAX_HELD_OUT_PERCENT}, or 0 for the default"
    if not 0 <= policy.max_document_percent <= MAX_PERCENT:
        yield "max_document_percent", f"must be 1 to {MAX_PERCENT}, or 0 for no limit"


def _check_own_tasks(tasks: Sequence[OwnTask]) -> Iterator[tuple[str, str]]:
    if len(tasks) > MAX_OWN_TASKS:
        yield "own_tasks", f"must have at most {MAX_OWN_TASKS} tasks"
    names = [task.name for task in tasks]
    for index, task in enumerate(tasks):
        if not SLUG.fullmatch(task.name):
            yield f"own_tasks[{index}].name", "must be a slug of at most 63 characters of a-z, 0-9 and '-'"
        elif task.name in (*TASKS, *RESERVED):
            yield f"own_tasks[{index}].name", "is a built-in task; choose another name"
        elif task.name in names[:index]:
            yield f"own_tasks[{index}].name", "is used twice"
        if not task.instruction.strip() or len(task.instruction) > MAX_INSTRUCTION:
            yield f"own_tasks[{index}].instruction", f"must have 1 to {MAX_INSTRUCTION:,} characters"


def _check_names(policy: RowPolicy) -> Iterator[tuple[str, str]]:
    known = (*TASKS, *(task.name for task in policy.own_tasks))
    for index, task in enumerate(policy.tasks):
        if task not in known:
            yield f"tasks[{index}]", f"must be one of {', '.join(TASKS)}, or one of `own_tasks`"
        elif task in policy.tasks[:index]:
            yield f"tasks[{index}]", "is listed twice"


def _check_replay(policy: RowPolicy) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(policy.replay):
        if not SLUG.fullmatch(name):
            yield f"replay[{index}]", "must be the name of an imported dataset, a slug of a-z, 0-9 and '-'"
        elif name in policy.replay[:index]:
            yield f"replay[{index}]", "is listed twice"
    if policy.replay and not 1 <= policy.replay_percent <= MAX_REPLAY_PERCENT:
        yield "replay_percent", f"must be 1 to {MAX_REPLAY_PERCENT} if `replay` names datasets"
    if policy.replay_percent and not policy.replay:
        command = "`tailor dataset import FILE --name NAME --licence LICENCE`"
        yield "replay_percent", f"must be 0 unless `replay` names imported datasets; {command} makes them"
