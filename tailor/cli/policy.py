"""`tailor policy`: check, compare, preview and install policies."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from tailor.api.anonymization.v1 import anonymization_pb2, policy_pb2
from tailor.api.common.v1 import common_pb2
from tailor.cli.messages import to_dict
from tailor.cli.options import Limit, listed
from tailor.cli.output import short
from tailor.cli.replays import start_replay
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages, item_table
from tailor.columns import columns, read
from tailor.errors import InvalidArgument, Reason
from tailor.list_columns import describe_rules_only

NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
# A policy's patterns are tried in a separate process, and a text is read twice.
CHECK_SECONDS = 180.0
PREVIEWED = (".md", ".markdown", ".txt", ".html", ".htm", ".eml")
COLOURS = {"-": "red", "+": "green", "@": "dim"}
# The language model reads a long text slowly, and requests queue.
PREVIEW_SECONDS = 120.0
POLICY_HELP = "A TOML file, or the name of a policy that comes with Tailor, such as hipaa-safe-harbor."


def check(
    session: CommandSession,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP + " By default, the policy in force.")] = "",
) -> None:
    """Check a policy and show what it decides. A wrong policy is reported field by field, and the exit status is 1."""
    request = policy_pb2.CheckPolicyRequest(policy=read_policy(policy) if policy else "")
    answer = session.connections.policies.CheckPolicy(request, timeout=CHECK_SECONDS)
    session.output.emit(answer, _describe_decisions(answer))


def diff(
    session: CommandSession,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP)],
    before: Annotated[str, typer.Argument(help="The policy to compare it with; by default, the one in force.")] = "",
    *,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 file of at most 200,000 characters to compare on.")] = None,
    source: Annotated[str, typer.Option(help="The text's label `source`.")] = "",
    department: Annotated[str, typer.Option(help="The text's label `department`.")] = "",
    confidentiality: Annotated[str, typer.Option(help="The text's label `confidentiality`.")] = "",
) -> None:
    """Show where two policies differ: by type and labels with counts of the stored documents, and on a text. Nothing is stored."""
    request = policy_pb2.ComparePoliciesRequest(
        before=read_policy(before) if before else "",
        after=read_policy(policy),
        text=read_text(text) if text else "",
        labels=common_pb2.Labels(source=source, department=department, confidentiality=confidentiality),
    )
    answer = session.connections.policies.ComparePolicies(request, timeout=CHECK_SECONDS)
    session.output.emit(answer, _describe_differences(answer))


def preview(
    session: CommandSession,
    file: Annotated[Path, typer.Argument(help="A UTF-8 file: md, txt, html or eml, at most 200,000 characters.")],
    *,
    policy: Annotated[
        Path | None, typer.Option(metavar="TOML", help="The policy to try; by default, the installation's.")
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show changed lines before and after, and the findings.")
    ] = False,
    source: Annotated[str, typer.Option(help="The document's label `source`.")] = "",
    department: Annotated[str, typer.Option(help="The document's label `department`.")] = "",
    confidentiality: Annotated[str, typer.Option(help="The document's label `confidentiality`.")] = "",
) -> None:
    """Preview the anonymised text of a document. Nothing is stored. Markup is shown as it is in the file."""
    if file.suffix.lower() not in PREVIEWED:
        raise InvalidArgument(
            Reason.NOT_TEXT, f"A preview accepts {', '.join(PREVIEWED)}; publish other formats with `tailor publish`."
        )
    before = read_text(file)
    request = anonymization_pb2.PreviewAnonymizationRequest(
        text=before,
        policy=read_text(policy) if policy else "",
        labels=common_pb2.Labels(source=source, department=department, confidentiality=confidentiality),
    )
    stub = session.connections.anonymization
    answer = stub.PreviewAnonymization(request, timeout=PREVIEW_SECONDS)
    document = {"before": before, "after": answer.text, **to_dict(answer)}
    document.pop("text")
    session.output.emit(document, _describe_preview(before, answer) if diff else answer.text)


def apply(
    session: CommandSession,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP)],
    *,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also send what passed under another policy through the barrier again.")
    ] = False,
) -> None:
    """Install a policy for the running installation. It is recorded who installed it and when."""
    request = policy_pb2.ApplyPolicyRequest(policy=read_policy(policy))
    answer = session.connections.policies.ApplyPolicy(request, timeout=CHECK_SECONDS)
    document = to_dict(answer)
    if replay:
        document["replay"] = to_dict(start_replay(session, answer.policy.barrier_digest, all_documents=False))
    session.output.emit(document, _describe_applied(answer, is_replayed=replay))


@listed
def list_policies(session: CommandSession, request: policy_pb2.ListPoliciesRequest, limit: Limit = 50) -> None:
    """List the policies that were in force, newest first, with who installed them and when."""
    emit_pages(session, session.connections.policies.ListPolicies, request, COLUMNS, limit)


COLUMNS = columns(
    policy_pb2.InstalledPolicy,
    "generation, policy=policy_digest, detectors=detectors_digest, installed by, at=create_time",
)


def read_policy(name: str) -> str:
    """The TOML of a policy: a file's content, or an extension of the policy of that name without changes."""
    path = Path(name)
    if not path.exists() and NAME.fullmatch(name):
        return f'extends = "{name}"\n'
    return read_text(path)


def read_text(path: Path) -> str:
    """A UTF-8 file. Raises InvalidArgument (INVALID_FILE)."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            Reason.INVALID_FILE, f"{path} is not UTF-8: byte {error.start} is invalid. Save the file as UTF-8."
        ) from None


def _describe_decisions(answer: policy_pb2.CheckPolicyResponse) -> Iterator[Any]:
    """The decisions of a policy."""
    yield f"policy {short(answer.policy_digest)} is valid"
    yield item_table("", DECISIONS, answer.decisions)
    if answer.list_files:
        yield f"files of names: {', '.join(answer.list_files)}"
    yield f"policies by name: {', '.join(answer.named_policies)}"


def _describe_differences(answer: policy_pb2.ComparePoliciesResponse) -> Iterator[Any]:
    """Where two policies differ."""
    yield f"{short(answer.before_digest)} -> {short(answer.after_digest)}"
    same = "Both treat every type in the same way."
    yield item_table("", DIFFERENCES, answer.differences) if answer.differences else same
    if answer.HasField("text_after"):
        yield _list_changed_lines(answer.text_before.text, answer.text_after.text)


def _list_changed_lines(before: str, after: str) -> Iterator[Text]:
    """The lines of a text that changed."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", n=1, lineterm="")
    return (Text(line, style=COLOURS.get(line[:1], "")) for line in lines)


def _describe_applied(answer: policy_pb2.ApplyPolicyResponse, *, is_replayed: bool) -> Iterator[str]:
    """What was installed."""
    policy = answer.policy
    verb = "is in force" if answer.changed else "was in force already"
    yield f"policy {short(policy.policy_digest)} {verb}, generation {policy.generation}"
    if is_replayed:
        yield "The replay runs. `tailor replay list` shows its progress."
    elif count := answer.outdated_documents:
        yield f"{count} documents passed under another policy or other detectors. `tailor replay start` reaches them."


def _rule(rule: int, labels: dict[str, str]) -> str:
    if rule < 0:
        return "every document without a rule"
    return f"rules[{rule}]: " + ", ".join(f"{name} {values}" for name, values in sorted(labels.items()))


def _labels(labels: common_pb2.Labels) -> str:
    named = {name: getattr(labels, name) for name in ("source", "department", "confidentiality")}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value) or "any"


def _describe_preview(before: str, answer: anonymization_pb2.PreviewAnonymizationResponse) -> Iterator[Any]:
    yield _list_changed_lines(before, answer.text)
    yield f"\nfindings under policy {short(answer.policy_digest)}"
    yield from filter(None, [describe_rules_only(answer)])
    actions = {change.entity_type: str(read(change, "action")) for change in answer.changes}
    found = columns(None, "type=0, found=1", ("action", lambda row: actions.get(row[0], "")))
    yield item_table("", found, sorted(answer.findings.items()))


DECISIONS = columns(
    policy_pb2.PolicyDecision,
    "type=entity_type, action",
    ("for", lambda decision: _rule(decision.rule, dict(decision.labels))),
)
DIFFERENCES = columns(
    policy_pb2.PolicyDifference,
    "type=entity_type",
    ("labels", lambda item: _labels(item.labels)),
    "before, after, documents=documents or '', values=values or ''",
)
