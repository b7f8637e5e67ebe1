"""`tailor anonymize` and `tailor reidentify`: preview a policy's effect on a document, and look up a surrogate."""

import difflib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tailor.api.anonymization.v1 import anonymization_pb2
from tailor.api.common.v1 import common_pb2
from tailor.cli.calls import unary
from tailor.cli.messages import short_enum, to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import session_of
from tailor.errors import InvalidArgument, Reason

SUFFIXES = (".md", ".markdown", ".txt", ".html", ".htm", ".eml")
COLOURS = {"-": "red", "+": "green", "@": "dim"}
# The language model reads a long text slowly, and requests queue.
PREVIEW_SECONDS = 120.0

app = typer.Typer()


@app.command()
def anonymize(
    context: typer.Context,
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
    session = session_of(context)
    if file.suffix.lower() not in SUFFIXES:
        raise InvalidArgument(
            Reason.NOT_TEXT, f"A preview accepts {', '.join(SUFFIXES)}; publish other formats with `tailor publish`."
        )
    before = _read(file)
    request = anonymization_pb2.PreviewAnonymizationRequest(
        text=before,
        policy=_read(policy) if policy else "",
        labels=common_pb2.Labels(source=source, department=department, confidentiality=confidentiality),
    )
    stub = session.connections.anonymization
    answer = unary("anonymization", stub.PreviewAnonymization, request, PREVIEW_SECONDS)
    document = {"before": before, "after": answer.text, **to_dict(answer)}
    document.pop("text")
    render = (lambda console: _show(console, before, answer)) if diff else shows(Text(answer.text))
    session.output.emit(document, render)


@app.command()
def reidentify(
    context: typer.Context,
    surrogate: Annotated[str, typer.Argument(help="The surrogate, as it is in a text.")],
    *,
    entity_type: Annotated[str, typer.Option("--type", help="Its type, such as PERSON or EMAIL_ADDRESS.")],
    purpose: Annotated[
        str, typer.Option(help="Why it is needed, in at least 10 characters; recorded in the audit log.")
    ],
) -> None:
    """Show the true value behind a surrogate. Every call is recorded in the audit log.

    Needs a key with the role data-protection. The embedded stack's first is in `.tailor/secrets/protection.key`.
    """
    session = session_of(context)
    request = anonymization_pb2.ReidentifyRequest(entity_type=entity_type, surrogate=surrogate, purpose=purpose)
    answer = unary("anonymization", session.connections.anonymization.Reidentify, request)
    session.output.emit(to_dict(answer), shows(Text(answer.value)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        text = f"{path} is not UTF-8: byte {error.start} is invalid. Save the file as UTF-8."
        raise InvalidArgument(Reason.INVALID_FILE, text) from None


def _show(console: Console, before: str, answer: anonymization_pb2.PreviewAnonymizationResponse) -> None:
    lines = difflib.unified_diff(before.splitlines(), answer.text.splitlines(), "before", "after", n=1, lineterm="")
    for line in lines:
        console.print(Text(line, style=COLOURS.get(line[:1], "")), soft_wrap=True)
    actions = {
        change.entity_type: short_enum(anonymization_pb2.Action, change.action, "ACTION_") for change in answer.changes
    }
    rows = [(kind, answer.findings[kind], actions.get(kind, "")) for kind in sorted(answer.findings)]
    console.print(f"\nfindings under policy {short(answer.policy_digest)}")
    if answer.rules_only_languages:
        console.print(
            f"masked by rules only, because no detector covers them: {', '.join(answer.rules_only_languages)}"
        )
    console.print(table("", ("type", "found", "action"), rows))
