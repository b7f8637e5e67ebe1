"""`tailor policy`: check, compare and install policies, replay them over what passed, and write the processing record."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.anonymization.v1 import policy_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import replay_pb2
from tailor.cli import ids, policy_views, processing_record
from tailor.cli.calls import first, pages, unary
from tailor.cli.messages import to_dict
from tailor.cli.output import short, shows, table
from tailor.cli.session import CommandSession, session_of
from tailor.errors import InvalidArgument, Reason
from tailor.events.envelope import new_id

NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
# A policy's patterns are tried in a separate process, and a text is read twice.
CHECK_SECONDS = 180.0
POLL_SECONDS = 2.0
POLICY_HELP = "A TOML file, or the name of a policy that comes with Tailor, such as hipaa-safe-harbor."

app = typer.Typer(
    name="policy", help="Check, compare, install and replay what is anonymised, and how.", no_args_is_help=True
)
app.command("record")(processing_record.record)


@app.command()
def check(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP + " By default, the policy in force.")] = "",
) -> None:
    """Check a policy and show what it decides. A wrong policy is reported field by field, and the exit status is 1."""
    session = session_of(context)
    request = policy_pb2.CheckPolicyRequest(policy=read_policy(policy) if policy else "")
    answer = unary("anonymization", session.connections.policies.CheckPolicy, request, CHECK_SECONDS)
    session.output.emit(to_dict(answer), lambda console: policy_views.print_decisions(console, answer))


@app.command()
def diff(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP)],
    before: Annotated[str, typer.Argument(help="The policy to compare it with; by default, the one in force.")] = "",
    *,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 file of at most 200,000 characters to compare on.")] = None,
    source: Annotated[str, typer.Option(help="The text's label `source`.")] = "",
    department: Annotated[str, typer.Option(help="The text's label `department`.")] = "",
    confidentiality: Annotated[str, typer.Option(help="The text's label `confidentiality`.")] = "",
) -> None:
    """Show where two policies differ: by type and labels with counts of the stored documents, and on a text. Nothing is stored."""
    session = session_of(context)
    request = policy_pb2.ComparePoliciesRequest(
        before=read_policy(before) if before else "",
        after=read_policy(policy),
        text=_read(text) if text else "",
        labels=common_pb2.Labels(source=source, department=department, confidentiality=confidentiality),
    )
    answer = unary("anonymization", session.connections.policies.ComparePolicies, request, CHECK_SECONDS)
    session.output.emit(to_dict(answer), lambda console: policy_views.print_differences(console, answer))


@app.command()
def apply(
    context: typer.Context,
    policy: Annotated[str, typer.Argument(help=POLICY_HELP)],
    *,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also send what passed under another policy through the barrier again.")
    ] = False,
) -> None:
    """Install a policy for the running installation. It is recorded who installed it and when."""
    session = session_of(context)
    request = policy_pb2.ApplyPolicyRequest(policy=read_policy(policy))
    answer = unary("anonymization", session.connections.policies.ApplyPolicy, request, CHECK_SECONDS)
    document = to_dict(answer)
    if replay:
        document["replay"] = to_dict(start_replay(session, answer.policy.barrier_digest, all_documents=False))
    session.output.emit(document, lambda console: policy_views.print_applied(console, answer, is_replayed=replay))


@app.command("list")
def list_policies(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Max policies to list.")] = 50,
) -> None:
    """List the policies that were in force, newest first, with who installed them and when."""
    session = session_of(context)
    stub, request = session.connections.policies, policy_pb2.ListPoliciesRequest()
    items = first(limit, pages("anonymization", stub.ListPolicies, request, "policies"))
    columns = ("generation", "policy", "detectors", "installed by", "at")
    rows = [
        (
            item.generation,
            short(item.policy_digest),
            short(item.detectors_digest),
            item.installed_by,
            policy_views.moment(item.create_time),
        )
        for item in items
    ]
    session.output.emit({"policies": [to_dict(item) for item in items]}, shows(table("", columns, rows)))


@app.command()
def replay(
    context: typer.Context,
    *,
    all_documents: Annotated[
        bool, typer.Option("--all", help="Every document; needed after a list of names changed.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the replay has ended, and show its result.")] = False,
) -> None:
    """Send what passed under another policy or other detectors through the barrier again.

    Documents, datasets and adapters are superseded like by an erasure. A document whose text is neither kept nor reachable by reference
    needs its owner to publish it again.
    """
    session = session_of(context)
    policies = session.connections.policies
    request = policy_pb2.ListPoliciesRequest(page_size=1)
    in_force = unary("anonymization", policies.ListPolicies, request).policies
    digest = in_force[0].barrier_digest if in_force else ""
    started = start_replay(session, digest, all_documents=all_documents)
    if wait:
        started = _wait(session, started)
    _emit(session, started)


@app.command()
def replays(
    context: typer.Context,
    replay_id: Annotated[
        str,
        typer.Argument(metavar="[ID]", help="Show this replay, and which adapters learned.", callback=ids.replay_id),
    ] = "",
    *,
    outcome: Annotated[
        str, typer.Option(help="With ID: list its documents with this outcome, such as NEEDS_OWNER.")
    ] = "",
    cancel: Annotated[bool, typer.Option("--cancel", help="With ID: end the replay before its next document.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Max replays or documents to list.")] = 50,
) -> None:
    """List replays, newest first, with their progress."""
    session = session_of(context)
    stub = session.connections.replays
    if not replay_id:
        items = first(limit, pages("ingestion", stub.ListReplays, replay_pb2.ListReplaysRequest(), "replays"))
        document = {"replays": [to_dict(item) for item in items]}
        session.output.emit(document, shows(policy_views.replay_table(items)))
    elif outcome:
        request = replay_pb2.ListReplayDocumentsRequest(replay_id=replay_id, outcome=outcome.upper())
        documents = first(limit, pages("ingestion", stub.ListReplayDocuments, request, "documents"))
        ids = [document.document_id for document in documents]
        session.output.emit({"document_ids": ids}, shows("\n".join(ids) or "No document has this outcome."))
    elif cancel:
        request_cancel = replay_pb2.CancelReplayRequest(replay_id=replay_id)
        _emit(session, unary("ingestion", stub.CancelReplay, request_cancel).replay)
    else:
        request_one = replay_pb2.GetReplayRequest(replay_id=replay_id)
        _emit(session, unary("ingestion", stub.GetReplay, request_one).replay)


def read_policy(name: str) -> str:
    """The TOML of a policy: a file's content, or an extension of the policy of that name without changes."""
    path = Path(name)
    if not path.exists() and NAME.fullmatch(name):
        return f'extends = "{name}"\n'
    return _read(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidArgument(Reason.INVALID_FILE, f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            Reason.INVALID_FILE, f"{path} is not UTF-8: byte {error.start} is invalid. Save the file as UTF-8."
        ) from None


def start_replay(session: CommandSession, barrier_digest: str, *, all_documents: bool) -> replay_pb2.Replay:
    """Begin a replay under the policy and detectors of a digest. Raises FailedPrecondition (REPLAY_RUNNING)."""
    request = replay_pb2.StartReplayRequest(
        request_id=new_id("req"), all_documents=all_documents, barrier_digest=barrier_digest
    )
    return unary("ingestion", session.connections.replays.StartReplay, request).replay


def _wait(session: CommandSession, replay: replay_pb2.Replay) -> replay_pb2.Replay:
    done = -1
    while replay.state == replay_pb2.REPLAY_STATE_RUNNING:
        if sum(replay.outcomes.values()) != done:
            done = sum(replay.outcomes.values())
            session.output.notes.print(f"{done} of {replay.documents} documents", highlight=False)
        time.sleep(POLL_SECONDS)
        request = replay_pb2.GetReplayRequest(replay_id=replay.replay_id)
        replay = unary("ingestion", session.connections.replays.GetReplay, request).replay
    return replay


def _emit(session: CommandSession, replay: replay_pb2.Replay) -> None:
    learners = policy_views.find_learners(session.connections, replay)
    document = to_dict(replay) | {
        "adapters": [to_dict(learner) for learner in learners.superseded],
        "unchecked_adapters": [to_dict(learner) for learner in learners.unchecked],
    }
    session.output.emit(document, lambda console: policy_views.print_replay(console, replay, learners))
