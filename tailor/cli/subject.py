"""`tailor subject`: what is held about a person, for an access request, and the true value behind a surrogate."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.api.anonymization.v1 import anonymization_pb2, subject_pb2
from tailor.api.registry.v1 import lineage_pb2
from tailor.cli.messages import to_dict
from tailor.cli.replays import list_learners
from tailor.cli.session import CommandSession
from tailor.errors import InvalidArgument, Reason

SECONDS = 60.0
MAX_CHARS = 256


def export(
    session: CommandSession,
    person: Annotated[
        str,
        typer.Argument(
            metavar="PERSON",
            help="The name, e-mail address or phone number as documents write it; `-` reads it from standard input. It is sent only to "
            "anonymization.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The JSON file to write; it must not exist, and only you can read it.")],
) -> None:
    """Write what is held about a person to a file: documents, counts by type, and adapters that learned.

    The file has no text and no name. Every call is recorded in the audit log. Needs a key with the role data-protection. The
    embedded stack's first is in `.tailor/secrets/protection.key`.
    """
    if out.exists():
        raise InvalidArgument(Reason.INVALID_FILE, f"{out} exists. Name a new file.")
    name = sys.stdin.readline(MAX_CHARS + 2).strip() if person == "-" else person
    request = subject_pb2.DescribeSubjectRequest(subject=name)
    held = session.connections.subjects.DescribeSubject(request, timeout=SECONDS)
    content = _content(session, held)
    _write(out, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
    counts = {"documents": len(content["documents"]), "adapters": len(content["adapters"]), "file": str(out)}
    shown = f"{counts['documents']} documents and rows, {counts['adapters']} adapters that learned from them: written to {out}"
    session.output.emit(counts, shown)


def reidentify(
    session: CommandSession,
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
    request = anonymization_pb2.ReidentifyRequest(entity_type=entity_type, surrogate=surrogate, purpose=purpose)
    answer = session.connections.anonymization.Reidentify(request)
    session.output.emit(answer, answer.value)


def _content(session: CommandSession, held: subject_pb2.DescribeSubjectResponse) -> dict[str, Any]:
    """The file's content: ids, labels, counts, times and digests."""
    ids = [document.document_id for document in held.documents]
    learners: list[lineage_pb2.Learner] = list_learners(session.connections, iter(ids)) if ids else []
    return {
        "exported_time": datetime.now(UTC).isoformat(timespec="seconds"),
        "entity_type": held.entity_type,
        "is_suppressed": held.suppressed,
        "vault_entries": held.vault_entries,
        "documents": [to_dict(document) for document in held.documents],
        "datasets": sorted({learner.dataset_digest for learner in learners if learner.dataset_digest}),
        "adapters": [to_dict(learner) for learner in learners],
        "note": "The texts hold surrogates for the person. Values that the policy masks or keeps cannot be found by name.",
    }


def _write(path: Path, text: str) -> None:
    """Create a file that only its owner can read. Raises InvalidArgument if it cannot be created."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be written: {error.strerror}.") from None
