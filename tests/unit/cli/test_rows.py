"""`tailor dataset rows` and `tailor document show`."""

from tailor.api.events.v1 import models_pb2
from tailor.api.synthetic.v1 import synthetic_pb2
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
