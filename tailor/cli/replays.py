"""`tailor replay`: send what passed under another policy through the barrier again, and see which adapters learned from it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import typer

from tailor.api.anonymization.v1 import policy_pb2
from tailor.api.ingestion.v1 import replay_pb2
from tailor.api.registry.v1 import lineage_pb2
from tailor.cli import ids
from tailor.cli.calls import first, pages
from tailor.cli.connections import Connections
from tailor.cli.messages import to_dict
from tailor.cli.options import Limit, listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list, emit_pages, item_table
from tailor.columns import columns
from tailor.errors import PermissionDenied
from tailor.events.envelope import new_id

POLL_SECONDS = 2.0
MAX_IDS = 1_000
# Outcomes after which a document has a new version.
SENT = ("KEPT", "FETCHED", "CURRENT")
ADVICE = {
    "NEEDS_OWNER": "no text is kept; have their owners publish them again",
    "CHANGED": "the reference has another text now; have their owners publish them again",
    "UNREACHABLE": "the reference cannot be fetched; have their owners publish them again",
    "UNREADABLE": "the kept text cannot be read; have their owners publish them again",
}
COLUMNS = columns(
    replay_pb2.Replay,
    "replay=replay_id, state, documents",
    ("done", lambda replay: sum(replay.outcomes.values())),
    ("sent", lambda replay: sum(replay.outcomes[name] for name in SENT if name in replay.outcomes)),
    "started=create_time",
)
DOCUMENTS = columns(replay_pb2.ReplayDocument, "document=document_id")
OUTCOMES = columns(None, "outcome=0, documents=1", ("", lambda row: ADVICE.get(row[0], "")))
LEARNERS = columns(
    lineage_pb2.Learner,
    "adapter=adapter_digest, specialist, serves=serving",
    ("state", lambda learner: "retired" if learner.retired else "tainted" if learner.tainted else ""),
    "dataset=dataset_digest",
)

ReplayId = Annotated[
    str, typer.Argument(metavar="ID", help="The replay's id, or its first digits.", callback=ids.replay_id)
]


def start(
    session: CommandSession,
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
    policies = session.connections.policies
    in_force = policies.ListPolicies(policy_pb2.ListPoliciesRequest(page_size=1)).policies
    digest = in_force[0].barrier_digest if in_force else ""
    started = start_replay(session, digest, all_documents=all_documents)
    _emit(session, _wait(session, started) if wait else started)


@listed
def list_replays(session: CommandSession, request: replay_pb2.ListReplaysRequest, limit: Limit = 50) -> None:
    """List replays, newest first, with their progress."""
    emit_pages(session, session.connections.replays.ListReplays, request, COLUMNS, limit)


def show(
    session: CommandSession,
    replay_id: ReplayId,
    *,
    outcome: Annotated[
        str, typer.Option(help="List its documents with this outcome instead, such as NEEDS_OWNER.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="With --outcome: max documents to list.")] = 50,
) -> None:
    """Show a replay: its outcomes, and which adapters learned from what would be masked now."""
    stub = session.connections.replays
    if not outcome:
        _emit(session, stub.GetReplay(replay_pb2.GetReplayRequest(replay_id=replay_id)).replay)
        return
    request = replay_pb2.ListReplayDocumentsRequest(replay_id=replay_id, outcome=outcome.upper())
    found = first(limit, pages(stub.ListReplayDocuments, request))
    document = {"document_ids": [item.document_id for item in found]}
    emit_list(session, found, DOCUMENTS, document=document, empty="No document has this outcome.")


def cancel(session: CommandSession, replay_id: ReplayId) -> None:
    """End a replay before its next document."""
    _emit(session, session.connections.replays.CancelReplay(replay_pb2.CancelReplayRequest(replay_id=replay_id)).replay)


def start_replay(session: CommandSession, barrier_digest: str, *, all_documents: bool) -> replay_pb2.Replay:
    """Begin a replay under the policy and detectors of a digest. Raises FailedPrecondition (REPLAY_RUNNING)."""
    request = replay_pb2.StartReplayRequest(
        request_id=new_id("req"), all_documents=all_documents, barrier_digest=barrier_digest
    )
    return session.connections.replays.StartReplay(request).replay


def list_learners(connections: Connections, document_ids: Iterator[str]) -> list[lineage_pb2.Learner]:
    """The adapters that learned from documents, each once."""
    learners: dict[str, lineage_pb2.Learner] = {}
    while batch := list(islice(document_ids, MAX_IDS)):
        answer = connections.lineage.ListLearners(lineage_pb2.ListLearnersRequest(document_ids=batch))
        learners |= {learner.adapter_digest: learner for learner in answer.learners}
    return [learners[digest] for digest in sorted(learners)]


@dataclass(frozen=True)
class ReplayLearners:
    """Adapters that learned from documents of a replay.

    `superseded` learned from a text that is another one now; `unchecked` from a document that only its owner can publish again.
    """

    superseded: Sequence[lineage_pb2.Learner] = ()
    unchecked: Sequence[lineage_pb2.Learner] = ()


def _find_learners(connections: Connections, replay: replay_pb2.Replay) -> ReplayLearners:
    """The adapters that learned from the documents of a replay; none if the key's role may not ask."""
    request = replay_pb2.ListReplayDocumentsRequest(replay_id=replay.replay_id, page_size=MAX_IDS)
    documents = list(pages(connections.replays.ListReplayDocuments, request))
    unchecked = [document.document_id for document in documents if document.outcome in ADVICE]
    checked = [document.document_id for document in documents if document.outcome not in ADVICE]
    try:
        learners = list_learners(connections, iter(checked))
        others = list_learners(connections, iter(unchecked))
    except PermissionDenied:
        return ReplayLearners()
    # An adapter that learned only from the new version is not marked.
    superseded = {learner.adapter_digest: learner for learner in learners if learner.tainted or learner.retired}
    return ReplayLearners(
        list(superseded.values()), [learner for learner in others if learner.adapter_digest not in superseded]
    )


def _wait(session: CommandSession, replay: replay_pb2.Replay) -> replay_pb2.Replay:
    done = -1
    while replay.state == replay_pb2.REPLAY_STATE_RUNNING:
        if sum(replay.outcomes.values()) != done:
            done = sum(replay.outcomes.values())
            session.output.note(f"{done} of {replay.documents} documents")
        time.sleep(POLL_SECONDS)
        replay = session.connections.replays.GetReplay(replay_pb2.GetReplayRequest(replay_id=replay.replay_id)).replay
    return replay


def _emit(session: CommandSession, replay: replay_pb2.Replay) -> None:
    learners = _find_learners(session.connections, replay)
    document = {**to_dict(replay), "adapters": learners.superseded, "unchecked_adapters": learners.unchecked}
    tables = (
        ("", OUTCOMES, sorted(replay.outcomes.items())),
        ("adapters that learned from what would be masked now", LEARNERS, learners.superseded),
        ("adapters that learned from documents whose owners must publish them again", LEARNERS, learners.unchecked),
    )
    session.output.emit(
        document,
        item_table("", COLUMNS, [replay]),
        (item_table(title, shown, items) for title, shown, items in tables if items),
    )
