"""`tailor publish`: publish documents as an engineer's own producer would."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tailor.cli.connections import Connections
from tailor.cli.output import shows
from tailor.cli.producer import KafkaRecordProducer, RecordProducer
from tailor.cli.records import Record, is_large, to_record, to_reference, to_stream, to_tombstone
from tailor.cli.session import session_of
from tailor.cli.submissions import Description, Kind, Submission, collect, refer
from tailor.errors import InvalidArgument, Reason
from tailor.rpc.status import wire_errors

IN_FLIGHT = 64
SUBMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Published:
    """How many files the broker has, how many were streamed, and the rejections that streaming told at once, by reason."""

    sent: int
    streamed: int
    rejected: dict[str, int]

    @property
    def total(self) -> int:
        """All submissions."""
        return self.sent + self.streamed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("publish")(publish)


def publish(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, metavar="[PATH...]", help="Files and directories.")
    ] = None,
    *,
    uri: Annotated[
        list[str] | None,
        typer.Option(help="A file by where it lies, `s3://BUCKET/KEY` or `https://HOST/...`; repeatable."),
    ] = None,
    tombstone: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Your own id of a document to erase everywhere; repeatable.")
    ] = None,
    source: Annotated[str, typer.Option(help="Label: the system it comes from, such as `sharepoint`.")] = "",
    department: Annotated[str, typer.Option(help="Label: the department that owns it.")] = "",
    confidentiality: Annotated[str, typer.Option(help="Label: its class, such as `internal`.")] = "",
    kind: Annotated[Kind | None, typer.Option(help="What it is; a document if not said.")] = None,
    document_id: Annotated[str, typer.Option(help="Your own id of the one file; its directory and name if none.")] = "",
    draft_id: Annotated[str, typer.Option(help="The draft that a deliverable was made out of.")] = "",
) -> None:
    """Publish documents to Kafka and wait until the broker has them.

    Labels come from the options, or from an index: `documents.json` in a directory, or `NAME.json` beside a directory NAME, which maps
    each file to its `kind`, `source`, `department` and `confidentiality`. Files over 512 KiB go to ingestion by gRPC. Publishing a file
    again is a new version of it; unchanged text is rejected as a duplicate. If any path is wrong, nothing is sent. What lies at a --uri is
    fetched by ingestion, from buckets and hosts that the installation allows; its id is the address without its query.
    """
    session = session_of(context)
    said_kind = kind or (Kind.DELIVERABLE if draft_id else None)
    said = Description(
        kind=said_kind.value if said_kind else None,
        source=source,
        department=department,
        confidentiality=confidentiality,
        document_id=document_id,
        draft_id=draft_id,
    )
    paths, uris, tombstones = paths or [], uri or [], tombstone or []
    if not (paths or uris or tombstones):
        raise InvalidArgument(Reason.NOTHING_TO_PUBLISH, "Name files, directories, a --uri or a --tombstone.")
    if document_id and len(paths) + len(uris) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "A document id can be given for one file only.")
    submissions = collect(paths, said) if paths else []
    records = [to_reference(each) for each in refer(uris, said)] if uris else []
    records += [to_tombstone(each) for each in tombstones]
    published = publish_all(session.connections, submissions, records=records)
    document = {
        "published": published.total,
        "sent": published.sent,
        "streamed": published.streamed,
        "rejected": published.rejected,
    }
    text = f"{published.total} published ({published.sent} to Kafka, {published.streamed} streamed)."
    text += "".join(f" {count} rejected: {reason}." for reason, count in published.rejected.items())
    session.output.emit(document, shows(text))


def publish_all(
    connections: Connections,
    submissions: Sequence[Submission],
    tell: Callable[[int], None] = lambda count: None,
    *,
    records: Sequence[Record] = (),
) -> Published:
    """Publish over the real broker; `tell` gets the number of files that arrived."""
    with closing(KafkaRecordProducer(connections.kafka())) as producer:
        return send_all(submissions, producer, lambda: connections.ingestion, tell, records=records)


def send_all(
    submissions: Sequence[Submission],
    producer: RecordProducer,
    ingestion: Callable[[], ingestion_pb2_grpc.IngestionServiceStub],
    tell: Callable[[int], None] = lambda count: None,
    *,
    records: Sequence[Record] = (),
) -> Published:
    """Send records, small files as records and large ones by stream; returns once all have arrived, a bounded number at a time."""
    waiting: deque[Callable[[], None]] = deque(producer.send(record) for record in records)
    rejected: Counter[str] = Counter()
    sent = streamed = 0
    for submission in submissions:
        if is_large(submission):
            answer = _submit(ingestion(), submission)
            rejected.update([answer.rejection_reason] if answer.rejection_reason else [])
            streamed += 1
        else:
            waiting.append(producer.send(to_record(submission)))
        while len(waiting) >= IN_FLIGHT:
            waiting.popleft()()
            sent += 1
        tell(sent + streamed)
    while waiting:
        waiting.popleft()()
        sent += 1
        tell(sent + streamed)
    return Published(sent, streamed, dict(rejected))


def _submit(
    ingestion: ingestion_pb2_grpc.IngestionServiceStub, submission: Submission
) -> ingestion_pb2.SubmitDocumentResponse:
    with wire_errors("ingestion"):
        return ingestion.SubmitDocument(to_stream(submission), timeout=SUBMIT_SECONDS)
