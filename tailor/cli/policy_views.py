"""How policies, their differences and replays are shown."""

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tailor.api.anonymization.v1 import policy_pb2
from tailor.api.common.v1 import common_pb2
from tailor.api.ingestion.v1 import replay_pb2
from tailor.api.registry.v1 import lineage_pb2
from tailor.cli.calls import pages, unary
from tailor.cli.connections import Connections
from tailor.cli.messages import short_enum
from tailor.cli.output import short, table
from tailor.errors import PermissionDenied

MAX_IDS = 1_000
COLOURS = {"-": "red", "+": "green", "@": "dim"}
# Outcomes after which a document has a new version.
SENT = ("KEPT", "FETCHED", "CURRENT")
ADVICE = {
    "NEEDS_OWNER": "no text is kept; have their owners publish them again",
    "CHANGED": "the reference has another text now; have their owners publish them again",
    "UNREACHABLE": "the reference cannot be fetched; have their owners publish them again",
    "UNREADABLE": "the kept text cannot be read; have their owners publish them again",
}


def moment(time: Timestamp) -> str:
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")


def print_decisions(console: Console, answer: policy_pb2.CheckPolicyResponse) -> None:
    """The decisions of a policy."""
    console.print(f"policy {short(answer.policy_digest)} is valid", highlight=False)
    rows = [
        (decision.entity_type, decision.action, _rule(decision.rule, dict(decision.labels)))
        for decision in answer.decisions
    ]
    console.print(table("", ("type", "action", "for"), rows))
    if answer.list_files:
        console.print(f"files of names: {', '.join(answer.list_files)}")
    console.print(f"policies by name: {', '.join(answer.named_policies)}")


def print_differences(console: Console, answer: policy_pb2.ComparePoliciesResponse) -> None:
    """Where two policies differ."""
    console.print(f"{short(answer.before_digest)} -> {short(answer.after_digest)}", highlight=False)
    rows = [
        (item.entity_type, _labels(item.labels), item.before, item.after, item.documents or "", item.values or "")
        for item in answer.differences
    ]
    if rows:
        console.print(table("", ("type", "labels", "before", "after", "documents", "values"), rows))
    else:
        console.print("Both treat every type in the same way.")
    if answer.HasField("text_after"):
        before, after = answer.text_before.text.splitlines(), answer.text_after.text.splitlines()
        for line in difflib.unified_diff(before, after, "before", "after", n=1, lineterm=""):
            console.print(Text(line, style=COLOURS.get(line[:1], "")), soft_wrap=True)


def print_applied(console: Console, answer: policy_pb2.ApplyPolicyResponse, *, is_replayed: bool) -> None:
    """What was installed."""
    policy = answer.policy
    verb = "is in force" if answer.changed else "was in force already"
    console.print(f"policy {short(policy.policy_digest)} {verb}, generation {policy.generation}", highlight=False)
    if is_replayed:
        console.print("The replay runs. `tailor policy replays` shows its progress.")
    elif answer.outdated_documents:
        count = answer.outdated_documents
        console.print(
            f"{count} documents passed under another policy or other detectors. `tailor policy replay` reaches them."
        )


def replay_table(replays: Sequence[replay_pb2.Replay]) -> Table:
    """Replays with their progress."""
    columns = ("replay", "state", "documents", "done", "sent", "started")
    rows = [
        (
            replay.replay_id,
            short_enum(replay_pb2.ReplayState, replay.state, "REPLAY_STATE_"),
            replay.documents,
            sum(replay.outcomes.values()),
            sum(replay.outcomes[name] for name in SENT if name in replay.outcomes),
            moment(replay.create_time),
        )
        for replay in replays
    ]
    return table("", columns, rows)


@dataclass(frozen=True)
class ReplayLearners:
    """Adapters that learned from documents of a replay.

    `superseded` learned from a text that is another one now; `unchecked` from a document that only its owner can publish again.
    """

    superseded: Sequence[lineage_pb2.Learner] = ()
    unchecked: Sequence[lineage_pb2.Learner] = ()


def print_replay(console: Console, replay: replay_pb2.Replay, learners: ReplayLearners) -> None:
    """One replay: its outcomes, and which adapters learned from texts that were masked otherwise."""
    console.print(replay_table([replay]))
    rows = [(name, count, ADVICE.get(name, "")) for name, count in sorted(replay.outcomes.items())]
    if rows:
        console.print(table("", ("outcome", "documents", ""), rows))
    for title, entries in [
        ("adapters that learned from what would be masked now", learners.superseded),
        ("adapters that learned from documents whose owners must publish them again", learners.unchecked),
    ]:
        if entries:
            console.print(learner_table(title, entries))


def learner_table(title: str, learners: Sequence[lineage_pb2.Learner]) -> Table:
    """Adapters that learned from documents."""
    rows = [
        (
            short(item.adapter_digest),
            item.specialist,
            "yes" if item.serving else "",
            _state(item),
            short(item.dataset_digest),
        )
        for item in learners
    ]
    return table(title, ("adapter", "specialist", "serves", "state", "dataset"), rows)


def find_learners(connections: Connections, replay: replay_pb2.Replay) -> ReplayLearners:
    """The adapters that learned from the documents of a replay; none if the key's role may not ask."""
    request = replay_pb2.ListReplayDocumentsRequest(replay_id=replay.replay_id, page_size=MAX_IDS)
    documents = list(pages("ingestion", connections.replays.ListReplayDocuments, request, "documents"))
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


def list_learners(connections: Connections, document_ids: Iterator[str]) -> list[lineage_pb2.Learner]:
    """The adapters that learned from documents, each once."""
    learners: dict[str, lineage_pb2.Learner] = {}
    while batch := list(islice(document_ids, MAX_IDS)):
        request = lineage_pb2.ListLearnersRequest(document_ids=batch)
        answer = unary("registry", connections.lineage.ListLearners, request)
        learners |= {learner.adapter_digest: learner for learner in answer.learners}
    return [learners[digest] for digest in sorted(learners)]


def _rule(rule: int, labels: dict[str, str]) -> str:
    if rule < 0:
        return "every document without a rule"
    return f"rules[{rule}]: " + ", ".join(f"{name} {values}" for name, values in sorted(labels.items()))


def _labels(labels: common_pb2.Labels) -> str:
    named = {name: getattr(labels, name) for name in ("source", "department", "confidentiality")}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value) or "any"


def _state(learner: lineage_pb2.Learner) -> str:
    return "retired" if learner.retired else "tainted" if learner.tainted else ""
