"""Datasets: their rows, where documents come from, and imported chats."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
from tailor.cli.imports import CHUNK_CHARS, CHUNK_ROWS, chunks, read_chats
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tests.fakes.serving import DATASET
from tests.unit.cli.conftest import Services, Tailor


def test_shows_rows_with_their_documents_and_reads_on_until_the_limit(tailor: Tailor, services: Services) -> None:
    shown = tailor("dataset", "rows", "engagement-reports", "--limit", "2")

    assert shown.code == 0
    for text in ("row_0", "row_1", "documents doc_0", "answer, train, structure, en, 1,234 tokens, grounded: yes"):
        assert text in shown.out
    assert "Where is [it] written?" in shown.out and "In section 1." in shown.out
    assert "row_2" not in shown.out
    assert f"2 rows shown, 2,000 read, of dataset {DATASET[:12]}; more follow" in shown.out
    assert [request.page_size for request in services.synthetic.listed] == [2, 1]


def test_ends_with_the_dataset(tailor: Tailor) -> None:
    document = tailor("dataset", "rows", "engagement-reports", "--output=json").document

    assert [row["row_id"] for row in document["rows"]] == ["row_0", "row_1", "row_2"]
    assert (document["next_page_token"], document["scanned_rows"]) == ("", 3000)


def test_sends_every_filter(tailor: Tailor, services: Services) -> None:
    filters = ("--task", "answer", "--document", "doc_1", "--grep", "kiln", "--split", "held_out")
    tailor("dataset", "rows", "engagement-reports", *filters, "--kind", "preference", "--dataset", DATASET)

    request = services.synthetic.listed[0]
    assert (request.task, request.document_id, request.text) == ("answer", "doc_1", "kiln")
    assert (request.split, request.kind) == (synthetic_pb2.SPLIT_HELD_OUT, models_pb2.DATASET_KIND_PREFERENCE)
    assert (request.specialist, request.dataset_digest) == ("engagement-reports", DATASET)


def test_refuses_an_unknown_split(tailor: Tailor, services: Services) -> None:
    assert tailor("dataset", "rows", "engagement-reports", "--split", "test").code == 2
    assert services.synthetic.listed == []


def test_twenty_drawn_rows_can_be_read_before_anything_is_built(tailor: Tailor, services: Services) -> None:
    shown = tailor("dataset", "rows", "engagement-reports", "--preview")

    assert shown.code == 0 and services.synthetic.listed == []
    assert "row_p0" in shown.out and "row_p19" in shown.out and "20 rows drawn; nothing was built" in shown.out
    assert "unspecified" not in shown.out
    assert tailor("dataset", "rows", "engagement-reports", "--preview", "--split", "train").code == 2


def test_rows_of_new_documents_say_who_published_them(tailor: Tailor) -> None:
    shown = tailor("dataset", "rows", "engagement-reports", "--new", "--limit", "3")

    assert shown.code == 0 and "row_p2" in shown.out and shown.out.count("published by key_7") == 3
    assert tailor("dataset", "rows", "engagement-reports", "--new", "--grep", "x").code == 2


def test_a_document_leads_to_its_rows(tailor: Tailor) -> None:
    shown = tailor("document", "show", "doc_1")

    assert shown.code == 0
    assert (
        "tailor dataset rows a --document doc_1" in shown.out and "tailor dataset rows c --document doc_1" in shown.out
    )
    document = tailor("document", "show", "doc_1", "--output=json").document
    assert (document["document"]["document_id"], document["specialists"]) == ("doc_1", ["a", "b", "c"])


def test_an_unknown_document_is_an_error(tailor: Tailor) -> None:
    refused = tailor("document", "show", "doc_9")

    assert refused.code == 1 and refused.err.startswith("error: UNKNOWN_DOCUMENT")


SOURCE, TESTS = synthetic_pb2.ORIGIN_KIND_SOURCE, synthetic_pb2.ORIGIN_KIND_TESTS


def origin(kind: "synthetic_pb2.OriginKind.ValueType", name: str, *, waits: bool = True) -> synthetic_pb2.Origin:
    message = synthetic_pb2.Origin(kind=kind, name=name, documents=3, publishers=["key_7"])
    if not waits:
        message.admit_time.FromSeconds(1_800_000_000)
    return message


def test_lists_what_waits_and_how_to_admit_it(tailor: Tailor, services: Services) -> None:
    services.synthetic.origins = [origin(TESTS, "key_7"), origin(SOURCE, "", waits=False)]
    shown = tailor("specialist", "origins", "reports")
    assert shown.code == 0 and "tests" in shown.out and "waits" in shown.out and "(none)" in shown.out
    assert "tailor specialist admit reports" in shown.err
    services.synthetic.origins = [origin(SOURCE, "wiki", waits=False)]
    assert "tailor specialist admit" not in tailor("specialist", "origins", "reports").err


def test_admits_everything_that_waits_or_one_of_it(tailor: Tailor, services: Services) -> None:
    services.synthetic.origins = [origin(TESTS, "key_7"), origin(SOURCE, "crm"), origin(SOURCE, "wiki", waits=False)]
    assert tailor("specialist", "admit", "reports", "--kind", "source", "--name", "crm").code == 0
    assert services.synthetic.admitted == [(SOURCE, "crm")]
    shown = tailor("specialist", "admit", "reports")
    assert "3 golden documents of key_7" in shown.out and "3 documents and deliverables of crm" in shown.out
    assert services.synthetic.admitted[1:] == [(TESTS, "key_7"), (SOURCE, "crm")]
    assert "Nothing of that waits." in tailor("specialist", "admit", "reports", "--kind", "examples").out
    assert tailor("specialist", "admit", "reports", "--kind", "golden").code == 2
    assert tailor("specialist", "admit", "reports", "--name", "crm").code == 2


OPTIONS = ("--name", "chat", "--licence", "CC-BY-4.0")


def chat(number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": f"Answer {number}."},
        ]
    }


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def test_imports_json_lines_of_both_shapes(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    file = write(tmp_path / "chats.jsonl", chat(1), {"prompt": "Say it.", "answer": "It."})

    result = tailor("dataset", "import", str(file), *OPTIONS, "--share", "10", "--specialist", "reports")

    assert result.code == 0, result.err
    assert "chat imported: 2 rows. Rejected: too long 2." in result.out
    (header,) = services.synthetic.imports.headers
    assert (header.name, header.licence, header.share_percent, header.source) == (
        "chat",
        "CC-BY-4.0",
        10,
        "chats.jsonl",
    )
    assert list(header.specialists) == ["reports"]
    rows = [row for chunk in services.synthetic.imports.chunks for row in chunk.rows]
    assert [[(item.role, item.content) for item in row.messages] for row in rows] == [
        [("user", "Question 1?"), ("assistant", "Answer 1.")],
        [("user", "Say it."), ("assistant", "It.")],
    ]


def test_the_same_bytes_have_the_same_request_id(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 1), ("c", 2)):
        tailor("dataset", "import", str(write(tmp_path / f"{name}.jsonl", chat(number))), *OPTIONS)

    first, same, other = (header.request_id for header in services.synthetic.imports.headers)
    assert first == same != other


def test_goes_on_when_the_barrier_answers_again(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    services.synthetic.imports.failures = 1

    result = tailor("dataset", "import", str(write(tmp_path / "a.jsonl", chat(1))), *OPTIONS, "--output=json")

    assert result.code == 0 and result.document["created"] is True
    assert result.document["import"]["rows"] == 1
    first, second = services.synthetic.imports.headers
    assert first.request_id == second.request_id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl, line 2 is not JSON"),
        ('"text"', "a.jsonl, row 2: needs `messages`"),
        ('{"prompt": "Only a prompt."}', "a.jsonl, row 2: needs `messages`"),
        ('{"messages": [{"role": "user"}]}', "a.jsonl, row 2: needs `messages`"),
        ('{"messages": ["user"]}', "a.jsonl, row 2: needs `messages`"),
    ],
)
def test_names_the_row_that_is_no_chat(tailor: Tailor, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(chat(1))}\n{line}\n")

    refused = tailor("dataset", "import", str(file), *OPTIONS)

    assert refused.code == 1
    assert refused.err.startswith("error: INVALID_FILE") and message in refused.err


def test_refuses_other_files_and_missing_ones(tailor: Tailor, services: Services, tmp_path: Path) -> None:
    for name in ("chats.csv", "missing.jsonl"):
        assert tailor("dataset", "import", str(tmp_path / name), *OPTIONS).err.startswith("error: INVALID_FILE")
    assert tailor("dataset", "import", "a.jsonl", "--name", "chat").code == 2
    assert services.synthetic.imports.headers == []


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(FailedPrecondition) as raised:
        list(read_chats([tmp_path / "a.parquet"]))
    assert raised.value.reason == Reason.NOT_INSTALLED


def test_a_chat_that_fits_into_no_message_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": "x" * 1_000_001, "answer": "y"})
    with pytest.raises(InvalidArgument) as raised:
        list(read_chats([file]))
    assert raised.value.reason == Reason.TOO_LONG


def test_chunks_stay_within_the_limits_and_keep_every_chat_in_order() -> None:
    small = [[("user", f"{number}"), ("assistant", "a")] for number in range(CHUNK_ROWS + 1)]
    large = [[("user", "x" * (CHUNK_CHARS // 2 + 1)), ("assistant", "a")] for _ in range(2)]
    made = list(chunks(small + large))
    assert [len(chunk.rows) for chunk in made] == [CHUNK_ROWS, 2, 1]
    assert [row.messages[0].content for chunk in made for row in chunk.rows][: CHUNK_ROWS + 1] == [
        item[0][1] for item in small
    ]
    assert list(chunks([])) == []


def test_lists_and_forgets_imports(tailor: Tailor, services: Services) -> None:
    shown = tailor("dataset", "imports")
    assert all(
        part in shown.out for part in ("CC-BY-4.0", "10 %", "1,200", "too long 2", "finished", "repeat the import")
    )
    assert "chat is forgotten" in tailor("dataset", "forget-import", "chat").out
    assert services.synthetic.imports.forgotten == ["chat"]


def test_datasets_without_a_command_still_lists_datasets(tailor: Tailor) -> None:
    assert "200" in tailor("dataset", "list", "--specialist", "engagement-reports").out


@contextmanager
def hub(answers: dict[str, tuple[int, bytes]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A web server with the given answers by path; yields its address and the requests: paths and authorizations."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            status, body = answers.get(self.path, (404, b"{}"))
            self.send_response(status)
            if status == 302:
                self.send_header("Location", body.decode())
                body = b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_imports_a_split_of_a_hub_without_giving_the_token_away(
    tailor: Tailor, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "chats.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"id": 1, **chat(1)}, {"id": 2, **chat(2)}]), path)
    answers: dict[str, tuple[int, bytes]] = {"/file": (200, path.read_bytes())}
    with hub(answers) as (elsewhere, asked_there):
        answers_here: dict[str, tuple[int, bytes]] = {"/0.parquet": (302, f"{elsewhere}/file".encode())}
        with hub(answers_here) as (address, asked_here):
            listing = {"default": {"train": [], "test_sft": [f"{address}/0.parquet"]}}
            answers_here["/api/datasets/acme/chat/parquet"] = (200, json.dumps(listing).encode())
            monkeypatch.setenv("HF_ENDPOINT", address)
            monkeypatch.setenv("HF_TOKEN", "hf_secret")
            result = tailor("dataset", "import", "hub:acme/chat:test_sft", *OPTIONS)
            unknown = tailor("dataset", "import", "hub:acme/chat:nothing", *OPTIONS)
            missing = tailor("dataset", "import", "hub:acme/none", *OPTIONS)
    assert result.code == 0, result.err
    assert services.synthetic.imports.headers[0].source == "hub:acme/chat:test_sft"
    assert sum(len(chunk.rows) for chunk in services.synthetic.imports.chunks) == 2
    assert asked_here[0] == ("/api/datasets/acme/chat/parquet", "Bearer hf_secret")
    assert asked_there == [("/file", "")]
    assert "has no split nothing" in unknown.err and unknown.err.startswith("error: UNKNOWN_DATASET")
    assert "Private data needs HF_TOKEN" in missing.err


def test_without_network_says_so(tailor: Tailor, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub({}) as (address, _):
        pass
    monkeypatch.setenv("HF_ENDPOINT", address)
    refused = tailor("dataset", "import", "hub:acme/chat", *OPTIONS)
    assert refused.err.startswith("error: HUB_UNAVAILABLE") and "import the file" in refused.err
    assert tailor("dataset", "import", "hub:no-owner", *OPTIONS).err.startswith("error: INVALID_SOURCE")
