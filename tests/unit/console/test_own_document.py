"""A publisher finds its document by its own id, which only ingestion knows."""

from services.console.domain import Role
from tailor.api.ingestion.v1 import ingestion_pb2
from tests.unit.console.world import FakeIngestion, World

ACCEPTED = ingestion_pb2.Submission(submission_id="sub_1", document_id="doc_1", version=2, format="md")
MALFORMED = ingestion_pb2.Submission(
    submission_id="sub_2",
    document_id="doc_9",
    rejection_stage="ingestion",
    rejection_reason="MALFORMED",
    hint="`text` must be a text.",
)


def world() -> World:
    ingestion = FakeIngestion({"memo <7>": [MALFORMED, ACCEPTED]})  # type: ignore[abstract]  # only what the console calls
    return World(ingestion=ingestion)


def test_shows_every_submission_with_its_state() -> None:
    answer = world().signed_in(Role.ENGINEER).get("/documents/own", params={"id": " memo <7> "})
    assert answer.status_code == 200
    assert "MALFORMED" in answer.text and "must be a text" in answer.text
    assert 'href="/documents/doc_1"' in answer.text and 'href="/documents/doc_9"' not in answer.text
    assert "memo &lt;7&gt;" in answer.text


def test_an_unknown_id_is_answered_in_words() -> None:
    answer = world().signed_in(Role.ENGINEER).get("/documents/own", params={"id": "memo-8"})
    assert answer.status_code == 200 and "Nothing was published under this id" in answer.text


def test_an_engineer_asks_with_its_own_key_and_an_operator_without_one() -> None:
    here = world()
    here.signed_in(Role.ENGINEER).get("/documents/own", params={"id": "memo <7>"})
    here.signed_in(Role.OPERATOR).get("/documents/own", params={"id": "memo <7>"})
    (_, engineer), (_, operator) = here.ingestion.asked
    assert engineer and not operator


def test_without_an_id_nothing_is_asked() -> None:
    here = world()
    assert here.signed_in(Role.ENGINEER).get("/documents/own").status_code == 200
    assert here.ingestion.asked == []
