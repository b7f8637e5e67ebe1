"""`tailor publish`, what it remembers, and documents with planted secrets."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tailor.api.common.v1 import common_pb2
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.publish import send_all
from tailor.cli.published_files import PublishedFiles
from tailor.cli.records import MAX_VALUE_BYTES, TOPICS, to_record, to_reference, to_tombstone
from tailor.cli.submissions import Description, FileSubmission, collect, refer
from tailor.errors import FailedPrecondition, InvalidArgument
from tailor.planted_secrets import read_secrets
from tests.fakes.ingestion import FakeProducer
from tests.unit.cli.conftest import Services, Tailor

SAMPLE = Path(__file__).parents[3] / "deploy" / "sample"
DRAFT = "drf_" + "0" * 32
LABELS = {"source": "wiki", "department": "risk", "confidentiality": "internal"}


def write(path: Path, text: str = "# Memo\n\nText.") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_collects_a_directory_without_hidden_files_and_index(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    write(folder / "a.md")
    write(folder / "sub" / "b.txt")
    write(folder / ".git" / "c.md")
    write(folder / "documents.json", json.dumps({"a.md": LABELS, "sub/b.txt": {"kind": "deliverable"}}))

    submissions = collect([folder], Description())

    assert [submission.document_id for submission in submissions] == ["papers/a.md", "papers/sub/b.txt"]
    assert submissions[0].description.labels == LABELS
    assert submissions[1].description.kind == "deliverable"


def test_reads_an_index_next_to_the_directory(tmp_path: Path) -> None:
    write(tmp_path / "papers.v2" / "a.md")
    write(tmp_path / "papers.v2.json", json.dumps({"a.md": LABELS}))

    assert collect([tmp_path / "papers.v2"], Description())[0].description.labels == LABELS


def test_a_single_file_has_the_same_id_and_labels_as_in_its_directory(tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "a.md")
    write(tmp_path / "papers.json", json.dumps({"a.md": LABELS}))

    alone, together = collect([file], Description()), collect([file.parent], Description())

    assert alone == together


def test_the_description_takes_precedence_over_the_index(tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "a.md")
    write(tmp_path / "papers.json", json.dumps({"a.md": LABELS}))

    labels = collect([file], Description(department="finance", source=""))[0].description.labels

    assert labels == LABELS | {"department": "finance"}


def test_the_same_file_twice_is_published_once(tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "a.md")

    assert len(collect([file, file.parent], Description())) == 1


def test_the_sample_is_described_by_its_index() -> None:
    submissions = {submission.path.name: submission for submission in collect([SAMPLE / "documents"], Description())}

    assert len(submissions) >= 120
    assert submissions["board-allergen-changeover.docx"].description.kind == "deliverable"
    assert all(item.description.labels for name, item in submissions.items() if not name.startswith("example-"))


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (Description(source="Has Blanks"), "CANNOT_PUBLISH"),
        (Description(kind="poem"), "CANNOT_PUBLISH"),
        (Description(document_id="x" * 513), "CANNOT_PUBLISH"),
        (Description(kind="deliverable", draft_id="7"), "CANNOT_PUBLISH"),
        (Description(kind="document", draft_id=DRAFT), "CANNOT_PUBLISH"),
    ],
)
def test_refuses_what_ingestion_would_refuse(tmp_path: Path, description: Description, reason: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        collect([write(tmp_path / "a.md")], description)
    assert raised.value.reason == reason
    assert list(raised.value.field_violations) == [str(tmp_path / "a.md")]


def test_refuses_two_files_with_the_same_id(tmp_path: Path) -> None:
    paths = [write(tmp_path / "x" / "papers" / "a.md"), write(tmp_path / "y" / "papers" / "a.md")]

    with pytest.raises(InvalidArgument, match="CANNOT_PUBLISH"):
        collect(paths, Description())


@pytest.mark.parametrize(
    ("text", "problem"),
    [("[1]", "must be a JSON object"), ("{", "is not JSON"), ('{"a.md": 1}', "the entry of 'a.md'")],
)
def test_refuses_an_invalid_index_and_says_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    write(tmp_path / "papers" / "documents.json", text)

    with pytest.raises(InvalidArgument, match=f"INVALID_INDEX: .*{problem}"):
        collect([tmp_path / "papers"], Description())


def test_refuses_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="NOTHING_TO_PUBLISH"):
        collect([tmp_path], Description())


def test_a_file_is_the_value_and_its_labels_are_headers(tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "a.md")
    description = Description(kind="deliverable", source="wiki", department="risk", confidentiality="internal")

    record = to_record(collect([file], description)[0])

    assert (record.topic, record.key, record.value) == ("deliverable.published.v1", "papers/a.md", file.read_bytes())
    assert record.headers == {
        "content-type": "text/markdown",
        "document-id": "papers/a.md",
        "file-name": "a.md",
        "kind": "deliverable",
        "label-source": "wiki",
        "label-department": "risk",
        "label-confidentiality": "internal",
    }


def test_the_deliverable_of_a_draft_goes_to_its_own_topic(tmp_path: Path) -> None:
    record = to_record(collect([write(tmp_path / "a.md")], Description(draft_id=DRAFT, kind="deliverable"))[0])

    assert record.topic == "deliverable.published.v1"
    assert record.headers["draft-id"] == DRAFT


def test_an_example_is_json_with_id_and_labels(tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "e.json", json.dumps({"kind": "example", "prompt": "Write.", "answer": "Text."}))

    record = to_record(collect([file], Description(source="wiki"))[0])

    assert record.topic == "example.published.v1"
    assert record.headers == {"content-type": "application/json"}
    assert json.loads(record.value or b"") == {
        "kind": "example",
        "prompt": "Write.",
        "answer": "Text.",
        "document_id": "papers/e.json",
        "labels": {"source": "wiki"},
    }


@pytest.mark.parametrize("text", ["[1, 2]", "{}", "not json"])
def test_a_json_file_that_is_not_a_submission_is_sent_as_a_file(tmp_path: Path, text: str) -> None:
    record = to_record(collect([write(tmp_path / "data.json", text)], Description())[0])

    assert record.value == text.encode()
    assert record.headers["content-type"] == "application/octet-stream"


def test_waits_for_every_acknowledgement_and_streams_large_files(
    tmp_path: Path, connections: Connections, services: Services
) -> None:
    for number in range(100):
        write(tmp_path / "papers" / f"{number:03}.md", f"# Memo {number}")
    large = write(tmp_path / "papers" / "large.txt", "x" * (MAX_VALUE_BYTES + 1))
    producer = FakeProducer()
    counts: list[int] = []

    published = send_all(
        collect([tmp_path / "papers"], Description(source="wiki")),
        producer.send,
        lambda: connections.ingestion,
        counts.append,
    )

    assert (published.sent, published.streamed, published.rejected) == (100, 1, {"DUPLICATE": 1})
    assert producer.acknowledged == 100
    assert counts[-1] == 101
    assert services.ingestion.files == [large.read_bytes()]
    header = services.ingestion.headers[0]
    assert (header.external_id, header.file_name, header.labels.source) == ("papers/large.txt", "large.txt", "wiki")
    assert header.kind == common_pb2.KIND_UNSPECIFIED


def test_an_invalid_path_is_refused_before_anything_is_sent(tailor: Tailor, tmp_path: Path) -> None:
    good = write(tmp_path / "a.md")

    assert tailor("publish", str(good), str(tmp_path / "missing.md")).code == 2


@pytest.mark.parametrize(
    ("content", "topic"),
    [
        ({"text": "Words."}, "document.submitted.v1"),
        ({"prompt": "Write.", "answer": "Text."}, "example.published.v1"),
        ({"prompt": "Write.", "reference": "Text."}, "test.published.v1"),
        ({"kind": "deliverable", "text": "Words."}, "deliverable.published.v1"),
    ],
)
def test_each_kind_goes_to_its_own_topic(content: dict[str, str], topic: str, tmp_path: Path) -> None:
    file = write(tmp_path / "papers" / "e.json", json.dumps(content))
    assert to_record(collect([file], Description())[0]).topic == topic
    kinds = {"document.submitted.v1": None} | {name: kind for kind, name in TOPICS.items() if kind != "document"}
    assert to_tombstone("e", kinds[topic]).topic == topic


def test_the_user_of_each_topic_comes_from_its_file(tmp_path: Path) -> None:
    lines = "TAILOR_KAFKA_SECURITY_PROTOCOL=SASL_PLAINTEXT\nTAILOR_KAFKA_SASL_USERNAME=tailor-{0}\nTAILOR_KAFKA_SASL_PASSWORD={0}\n"
    for user in ("publisher", "test-publisher"):
        write(tmp_path / f"kafka-{user}.env", lines.format(user))
    connections = Connections(
        Endpoints(tmp_path, kafka_bootstrap_servers="kafka.example:9094", kafka_user_files=tmp_path)
    )
    users = {topic: connections.kafka_publisher(topic).kafka_user for topic in (TOPICS["document"], TOPICS["test"])}
    assert users == {"document.submitted.v1": "tailor-publisher", "test.published.v1": "tailor-test-publisher"}
    assert connections.kafka_publisher(TOPICS["test"]).kafka_bootstrap_servers == "kafka.example:9094"
    with pytest.raises(FailedPrecondition, match=r"kafka-example-publisher\.env is missing.*example\.published\.v1"):
        connections.kafka_publisher(TOPICS["example"])


def test_invalid_labels_are_refused_before_anything_is_sent(tailor: Tailor, tmp_path: Path) -> None:
    refused = tailor("publish", str(write(tmp_path / "a.md")), "--source", "No Slug")

    assert refused.code == 1
    assert refused.err.splitlines()[0].startswith("error: CANNOT_PUBLISH: Nothing was sent")


def test_a_reference_is_json_whose_id_contains_no_signature() -> None:
    description = Description(kind="deliverable", source="wiki", draft_id=DRAFT)
    record = to_reference(refer(["https://files.example.com/r.pdf?signature=secret"], description)[0])

    assert (record.topic, record.key) == ("deliverable.published.v1", "https://files.example.com/r.pdf")
    assert json.loads(record.value or b"") == {
        "document_id": "https://files.example.com/r.pdf",
        "uri": "https://files.example.com/r.pdf?signature=secret",
        "kind": "deliverable",
        "draft_id": DRAFT,
        "labels": {"source": "wiki"},
    }


@pytest.mark.parametrize("uri", ["http://files.example.com/a", "s3://papers", "/etc/passwd", "https://a/" + "b" * 600])
def test_refuses_a_reference_that_ingestion_would_refuse(uri: str) -> None:
    with pytest.raises(InvalidArgument, match="CANNOT_PUBLISH"):
        refer([uri], Description())


def test_a_tombstone_has_an_id_and_no_value(connections: Connections) -> None:
    producer = FakeProducer()
    records = [to_tombstone("memo-7"), to_reference(refer(["s3://papers/a.md"], Description())[0])]

    published = send_all([], producer.send, lambda: connections.ingestion, records=records)

    assert (published.sent, producer.acknowledged) == (2, 2)
    assert (records[0].key, records[0].value, records[0].headers) == ("memo-7", None, {"document-id": "memo-7"})


def test_refuses_nothing_at_all_and_one_id_for_two_files(tailor: Tailor, tmp_path: Path) -> None:
    good = write(tmp_path / "a.md")

    assert "NOTHING_TO_PUBLISH" in tailor("publish").err
    both = tailor("publish", str(good), "--uri", "s3://papers/a.md", "--document-id", "memo-7")
    assert "DUPLICATE_DOCUMENT_ID" in both.err


def make_files(folder: Path) -> list[FileSubmission]:
    for name in ("a.md", "b.md"):
        (folder / name).write_text(name)
    return collect([folder], Description(department="research"))


def test_chooses_files_that_are_new_changed_or_described_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "papers"
    folder.mkdir()
    known, files = PublishedFiles(tmp_path / "published.json"), make_files(folder)
    assert known.choose_new(files) == files

    known.add(files[:1])
    assert known.choose_new(files) == files[1:]
    known.add(files[1:])
    assert known.choose_new(files) == []

    (folder / "a.md").write_text("changed")
    assert known.choose_new(files) == files[:1]
    relabelled = replace(files[1], description=Description(department="board"))
    assert known.choose_new([relabelled]) == [relabelled]
    assert {path.name for path in tmp_path.iterdir()} == {"papers", "published.json"}


def test_every_secret_of_the_list_stands_in_its_document(tailor: Tailor, tmp_path: Path) -> None:
    folder = tmp_path / "decoys"
    written = tailor("document", "plant-secrets", str(folder), "--count", "3", "--output=json")

    planted = read_secrets((folder / "planted_secrets.jsonl").read_bytes())
    assert written.document == {
        "documents": str(folder / "documents"),
        "planted_secrets": str(folder / "planted_secrets.jsonl"),
        "count": 3,
    }
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "documents").iterdir()}
    assert {secret.secret_id for secret in planted} == set(texts)
    assert all(f"{secret.before}{secret.value}." in texts[secret.secret_id] for secret in planted)
    assert len({secret.value for secret in planted}) == 3


def test_a_pattern_without_enough_chance_is_refused_before_anything_is_written(tailor: Tailor, tmp_path: Path) -> None:
    refused = tailor("document", "plant-secrets", str(tmp_path / "decoys"), "--pattern", "12-##")

    assert refused.code == 1
    assert "INVALID_PLANTED_SECRET" in refused.err
    assert not (tmp_path / "decoys").exists()


def test_an_earlier_list_is_not_overwritten(tailor: Tailor, tmp_path: Path) -> None:
    refused = tailor("document", "plant-secrets", str(tmp_path))

    assert refused.code == 1
    assert "already exists" in refused.err
