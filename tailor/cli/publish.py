"""`tailor publish`: publish documents in the way that any Kafka producer can."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tailor.api.ingestion.v1 import ingestion_pb2_grpc
from tailor.cli import ids
from tailor.cli.connections import Connections
from tailor.cli.records import Record, is_large, to_record, to_reference, to_stream, to_tombstone
from tailor.cli.session import CommandSession
from tailor.cli.submissions import Description, DocumentKind, FileSubmission, collect, refer
from tailor.errors import InvalidArgument, Reason

MAX_IN_FLIGHT = 64
SUBMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Published:
    """The number of files sent to Kafka, the number streamed over gRPC, and the streamed files' rejections by reason."""

    sent: int
    streamed: int
    rejected: dict[str, int]

    @property
    def total(self) -> int:
        """All published files."""
        return self.sent + self.streamed


def publish(
    session: CommandSession,
    paths: Annotated[
        list[Path] | None, typer.Argument(exists=True, metavar="[PATH...]", help="Files and directories.")
    ] = None,
    *,
    uri: Annotated[
        list[str] | None,
        typer.Option(help="A file by its address, `s3://BUCKET/KEY` or `https://HOST/...`; repeatable."),
    ] = None,
    tombstone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Your own id of a document to erase everywhere; repeatable. Give its `--kind` too."
        ),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Label: the system that the documents come from, such as `sharepoint`.")
    ] = "",
    department: Annotated[str, typer.Option(help="Label: the department that owns the documents.")] = "",
    confidentiality: Annotated[str, typer.Option(help="Label: the confidentiality class, such as `internal`.")] = "",
    kind: Annotated[
        DocumentKind | None,
        typer.Option(help="The kind of the documents; by default, that of the index or the file, or else `document`."),
    ] = None,
    document_id: Annotated[
        str, typer.Option(help="Your own id, if you publish one file; by default, its directory and name.")
    ] = "",
    draft_id: Annotated[
        str,
        typer.Option(
            help="The draft that a deliverable was made from, by at least the first 6 digits of its id.",
            callback=ids.draft_id,
        ),
    ] = "",
) -> None:
    """Publish documents to Kafka and wait until the broker has them. Each kind has its own topic, and its own users of Kafka.

    Labels come from the options or from an index: `documents.json` in a directory, or `NAME.json` next to a directory NAME. The index maps
    each file to its `kind`, `source`, `department` and `confidentiality`. Files over 512 KiB are streamed to ingestion over gRPC.
    Publishing a file again creates a new version of it; unchanged text is rejected as a duplicate. If any path is invalid, nothing is sent.
    Ingestion fetches a --uri itself, from the buckets and hosts that the installation allows; the id is the address without its query.
    """
    chosen_kind = kind or (DocumentKind.DELIVERABLE if draft_id else None)
    description = Description(
        kind=chosen_kind.value if chosen_kind else None,
        source=source,
        department=department,
        confidentiality=confidentiality,
        document_id=document_id,
        draft_id=draft_id,
    )
    paths, uris, tombstones = paths or [], uri or [], tombstone or []
    if not (paths or uris or tombstones):
        raise InvalidArgument(Reason.NOTHING_TO_PUBLISH, "Give files, directories, a --uri or a --tombstone.")
    if document_id and len(paths) + len(uris) != 1:
        raise InvalidArgument(Reason.DUPLICATE_DOCUMENT_ID, "--document-id needs exactly one file or --uri.")
    submissions = collect(paths, description) if paths else []
    records = [to_reference(reference) for reference in refer(uris, description)] if uris else []
    records += [to_tombstone(tombstone_id, description.kind) for tombstone_id in tombstones]
    published = publish_all(session.connections, submissions, records=records)
    document = {
        "published": published.total,
        "sent": published.sent,
        "streamed": published.streamed,
        "rejected": published.rejected,
    }
    text = f"{published.total} published ({published.sent} to Kafka, {published.streamed} streamed)."
    text += "".join(f" {count} rejected: {reason}." for reason, count in published.rejected.items())
    session.output.emit(document, text)


def publish_all(
    connections: Connections,
    submissions: Sequence[FileSubmission],
    tell: Callable[[int], None] = lambda count: None,
    *,
    records: Sequence[Record] = (),
) -> Published:
    """Publish to the real broker. `tell` receives the number of files that the broker has acknowledged."""
    from tailor.cli.producer import KafkaRecordProducer

    with closing(KafkaRecordProducer(connections.kafka_publisher)) as producer:
        return send_all(submissions, producer.send, lambda: connections.ingestion, tell, records=records)


def send_all(
    submissions: Sequence[FileSubmission],
    send: Callable[[Record], Callable[[], None]],
    ingestion: Callable[[], ingestion_pb2_grpc.IngestionServiceStub],
    tell: Callable[[int], None] = lambda count: None,
    *,
    records: Sequence[Record] = (),
) -> Published:
    """Send the records and files, large files over gRPC. Blocks until all are acknowledged, with a bounded number in flight.

    What `send` returns waits for the acknowledgement.
    """
    waiting: deque[Callable[[], None]] = deque(send(record) for record in records)
    rejected: Counter[str] = Counter()
    sent = streamed = 0
    for submission in submissions:
        if is_large(submission):
            answer = ingestion().SubmitDocument(to_stream(submission), timeout=SUBMIT_SECONDS)
            rejected.update([answer.rejection_reason] if answer.rejection_reason else [])
            streamed += 1
        else:
            waiting.append(send(to_record(submission)))
        while len(waiting) >= MAX_IN_FLIGHT:
            waiting.popleft()()
            sent += 1
        tell(sent + streamed)
    while waiting:
        waiting.popleft()()
        sent += 1
        tell(sent + streamed)
    return Published(sent, streamed, dict(rejected))
