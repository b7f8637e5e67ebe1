"""Write `docs/errors.md` from the code: every reason with its codes, and the messages that say its cause and remedy.

`python -m deploy.errors_page` writes the page; `--check` fails if it is out of date or a reason has no explanation.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tailor import errors
from tailor.errors import Code, Reason, TailorError

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "errors.md"
SOURCES = ("services", "tailor", "deploy")
MAX_MESSAGES = 2  # per reason; further raise sites say the same in other words

# Reasons that the code passes on with a message built elsewhere, or that stand for a canonical code without a closer reason.
EXPLAINED = {
    Reason.SUPERSEDED: "The run RUN takes its place: it learns from newer datasets of the specialist.",
    Reason.BEYOND_THE_REGISTRY: "An event claims more than the registry has published, or an answer was not asked for. Find out who may write that topic; only its producer should.",
    Reason.HELD_CALL_CLOSED: "The call that was held is not approved yet, or was declined, repeated, or has expired. Make it again without its id.",
    Reason.WRONG_PARTITIONS: "A topic has another number of partitions than is set. The message says whether to grow it or to change TAILOR_KAFKA_PARTITIONS.",
    Reason.ABORTED: "A concurrent change won. Read again and retry.",
    Reason.AMBIGUOUS_ADAPTER: "Several adapters begin with the given digits. Give more digits.",
    Reason.INVALID_PLANTED_SECRET: "A file of planted secrets has one JSON object per line; the message names the secret or the rule. See docs/evaluation/suites.md.",
    Reason.COMPONENT_FAILED: "A part of the embedded stack cannot start. The message names its log.",
    Reason.EXTERNAL_KEY_REFUSED: "The external model refused the key. Set a valid one in TAILOR_EXTERNAL_MODEL_KEYS; then `tailor evaluate ADAPTER`.",
    Reason.EXTERNAL_QUOTA: "The quota at the external model is used up. Raise it; then `tailor evaluate ADAPTER`.",
    Reason.EXTERNAL_REFUSED: "The external model refused more than a few prompts. Check its name, its limits and its filters.",
    Reason.INVALID_QUESTIONS: "The sample's questions.json must be a JSON list of objects, each with a `question`.",
    Reason.NOT_SERVING: "The adapter met the gate, but another one serves. `tailor promote` changes that.",
    Reason.ROLLOUT_REFUSED: "A replica refuses the adapter; the message has its reason. What served before still serves there.",
    Reason.ROLLOUT_UNFINISHED: "Not every ready replica serves the adapter yet. `tailor specialist show` names those that do not.",
    Reason.STACK_NOT_READY: "The embedded stack took too long to become ready. The message names the parts that wait.",
    Reason.AMBIGUOUS_DATASET: "Several datasets begin with the given digits. Give more digits.",
    Reason.CHILD_FAILED: "The process that reads the input failed without saying why. See the service's log.",
    Reason.CONTAINER_NOT_MADE: "Kubernetes could not create the worker's container; the message has its reason.",
    Reason.UNIMPLEMENTED: "The service does not have this call; it may be of another version. Update it.",
    Reason.DATASET_ERASED: "The dataset was superseded because a document was erased. Train on the newer dataset.",
    Reason.EVENTS_SET_ASIDE: "The broker will never take some events of the outbox. `tailor events dead` lists them; `tailor events replay` sends them again after the cause is mended.",
    Reason.KAFKA_RIGHT_MISSING: "The service's Kafka user lacks a right; the message names the right and the topic or group. Grant it with `python -m deploy.init.topics`, or add the ACL by hand. The service goes on by itself.",
    Reason.EVALUATION_FAILED: "The candidate could not be measured. `tailor adapters` and evaluation's log say why; then `tailor evaluate ADAPTER`.",
    Reason.IMAGE_NOT_PULLED: "Kubernetes could not pull the worker's image. Check its name and the pull secret.",
    Reason.INVALID_HEADER: "A header of the safetensors file or the request is malformed.",
    Reason.NO_LOG_PROBABILITIES: "A specialist with private prompts returns no log-probabilities. Ask without them.",
    Reason.NO_LONGER_KEPT: "The specialist stopped keeping drafts before this text was stored.",
    Reason.PRIVATE_SCHEMA: "With private prompts, a JSON schema may name people only in `enum` and `const`.",
    Reason.PROMPT_TOO_LONG: "Prompt and answer together must fit the base's context. Shorten the prompt.",
    Reason.RUN_FAILED: "The run ended without an adapter. `tailor runs watch RUN --logs` shows its worker's log.",
    Reason.STARTED_TOO_OFTEN: "The evaluation was interrupted too often. Check evaluation's memory and log, then `tailor evaluate ADAPTER`.",
    Reason.TOO_MUCH_WAITS: "Too many drafts wait for anonymization; this text was not stored.",
    Reason.TOO_OLD: "The draft waited too long for anonymization; its text was not stored.",
    Reason.TARGET_NOT_REACHED: "The synthesis ended with fewer rows than wanted. Its refusals say why; give more seeds or a finer grid.",
    Reason.TARGET_REACHED: "The synthesis ended with all rows that were wanted.",
    Reason.TEACHER_KEY_REFUSED: "The teacher refused the key. Set a valid one and restart synthetic; the synthesis resumes by itself.",
    Reason.TEACHER_QUOTA: "The quota at the teacher is used up. Raise it; the synthesis resumes by itself, or by `tailor syntheses resume`.",
    Reason.TEACHER_UNKNOWN_MODEL: "The endpoint does not have the model. Correct TAILOR_TEACHER_MODEL or the address, and restart synthetic.",
    Reason.WAITS_FOR_ADMISSION: "Kueue has not admitted the run's Job yet, or has evicted it; the message has Kueue's reason.",
    Reason.WAITS_FOR_CONTAINER: "The worker's container is being created.",
    Reason.WAITS_FOR_IMAGE: "The worker's image is being pulled.",
    Reason.WAITS_FOR_NODE: "No node has room for the worker; the message is the scheduler's.",
    Reason.WAITS_FOR_PLAN: "The run has not been planned yet.",
    Reason.WAITS_FOR_POD: "Kubernetes does not create the worker's pods; the message has its reason, such as a PriorityClass that does not exist.",
    Reason.WAITS_FOR_QUOTA: "The worker would exceed the namespace's ResourceQuota. The message names the quota, what is requested and what is in use. It starts when enough is free; or raise the quota.",
    Reason.WORKER_DIED: "The worker process ended unexpectedly, for example for lack of memory. The run starts again from its last checkpoint.",
    Reason.WORKER_SILENT: "The worker stopped reporting. The run starts again from its last checkpoint.",
    Reason.ALREADY_EXISTS: "The name is taken. Choose another one.",
    Reason.FAILED_PRECONDITION: "The current state does not allow the call.",
    Reason.INTERNAL: "A fault in a service. Its log has the place; report it.",
    Reason.INVALID_ARGUMENT: "The request is invalid. The field violations name what is wrong.",
    Reason.NOT_FOUND: "There is no such page or thing.",
    Reason.METHOD_NOT_ALLOWED: "The HTTP endpoint has no such method.",
    Reason.PERMISSION_DENIED: "The key's role does not allow the call.",
    Reason.RESOURCE_EXHAUSTED: "A limit is reached. Retry later.",
    Reason.TOO_SLOW: "The request's body arrived too slowly. Send it faster.",
    Reason.UNAUTHENTICATED: "The caller could not be identified. Send a valid API key.",
    Reason.UNAVAILABLE: "The service does not answer. Retry.",
}

HEADER = """\
# Error reasons

Every error carries a canonical gRPC code and one of these reasons (`google.rpc.ErrorInfo.reason`). At HTTP endpoints the code becomes the status in
parentheses. Runs and evaluations use the same reasons, without a code, for what they wait for and why they failed. `make proto` generates this page
from the code.

Retry only ABORTED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED and UNAVAILABLE.

| reason | code | cause and remedy |
|---|---|---|
"""


@dataclass
class Use:
    """Where a reason is used: its canonical codes and the messages given with it, in order of appearance."""

    codes: set[Code] = field(default_factory=set)
    messages: dict[str, None] = field(default_factory=dict)


def read_uses(files: Iterable[Path]) -> dict[str, Use]:
    """Every `Something(Reason.X, "message")` of the files, by reason."""
    uses: dict[str, Use] = defaultdict(Use)
    for path in files:
        for call in _calls(ast.parse(path.read_text(encoding="utf-8"))):
            for place, argument in enumerate(call.args):
                reason = _reason(argument)
                if reason is None:
                    continue
                uses[reason].codes.update(_code(call.func))
                text = _text(call.args[place + 1]) if len(call.args) > place + 1 else ""
                if text:
                    uses[reason].messages[text] = None
    return uses


def render(uses: dict[str, Use]) -> str:
    """The page. Raises SystemExit if a reason has no explanation."""
    rows, missing = [], []
    for reason in Reason:
        use = uses.get(reason.value, Use())
        explained = EXPLAINED.get(reason)
        texts = [explained] if explained else list(use.messages)[:MAX_MESSAGES]
        if not texts:
            missing.append(reason.value)
        codes = ", ".join(
            f"{code.name} ({code.http_status})" for code in sorted(use.codes, key=lambda code: code.value)
        )
        rows.append(
            f"| `{reason.value}` | {codes or '-'} | {'<br>'.join(text.replace('|', chr(92) + '|') for text in texts)} |"
        )
    if missing:
        raise SystemExit(
            f"deploy/errors_page.py: explain {', '.join(missing)} in EXPLAINED, or remove them from Reason"
        )
    return HEADER + "\n".join(rows) + "\n"


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _reason(node: ast.expr) -> str | None:
    is_member = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason"
    return node.attr if is_member and isinstance(node, ast.Attribute) and node.attr.isupper() else None


def _code(function: ast.expr) -> list[Code]:
    kind = getattr(errors, function.id, None) if isinstance(function, ast.Name) else None
    return [kind.code] if isinstance(kind, type) and issubclass(kind, TailorError) and kind is not TailorError else []


def _text(node: ast.expr) -> str:
    """A string literal; an f-string has its expressions' names in capitals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(part) for part in node.values)
    return ""


def _part(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else part
    name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
    return name.strip("_").upper() or "N"


def main() -> None:
    """Write the page, or compare it."""
    files = sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))
    page = render(read_uses(files))
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
            raise SystemExit("docs/errors.md is out of date: make proto")
        return
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
