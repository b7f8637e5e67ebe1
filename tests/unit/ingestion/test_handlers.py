"""Taking documents in, without stores."""

import hashlib
from typing import Any

import pytest

from services.ingestion.domain import (
    Accepted,
    File,
    Kind,
    Labels,
    Outcome,
    Parsed,
    Receipt,
    Reference,
    Refused,
    RejectionReason,
    Submission,
    malformed,
)
from services.ingestion.handlers import FETCH_PAUSES, Intake, take_in, withdraw
from tailor.errors import Reason, Unavailable
from tests.unit.ingestion.fakes import MemoryFetcher, make_intake, make_receipt, make_withdrawals

LABELS = Labels("wiki", "risk", "internal")


def submit(
    intake: Intake, key: str, external_id: str, content: File | Reference | Parsed, kind: Kind = Kind.DOCUMENT
) -> Outcome:
    return take_in(intake, make_receipt(key, Submission(external_id, kind, LABELS, content)))


def note(text: str) -> File:
    return File(text.encode(), "note.txt")


def test_keeps_a_document_in_quarantine_and_states_it() -> None:
    intake, catalogue, quarantine = make_intake()
    outcome = submit(intake, "1", "memo-7", note("The operating rhythm continues."))
    assert isinstance(outcome, Accepted)
    assert (outcome.sequence, outcome.format, outcome.char_count) == (1, "txt", 32)
    assert quarantine.written[0][2].text == "The operating rhythm continues.\n"
    assert catalogue.stated == [outcome]


def test_a_then_b_then_a_again_are_three_versions() -> None:
    intake, _, _ = make_intake()
    outcomes = [
        submit(intake, key, "memo-7", note(text)) for key, text in (("1", "text A"), ("2", "text B"), ("3", "text A"))
    ]
    assert [outcome.sequence for outcome in outcomes if isinstance(outcome, Accepted)] == [1, 2, 3]
    assert isinstance(outcomes[0], Accepted) and isinstance(outcomes[2], Accepted)
    assert outcomes[0].digest == outcomes[2].digest
    assert len({outcome.document_id for outcome in outcomes}) == 1


def test_the_same_text_twice_is_a_duplicate_in_the_same_or_another_document() -> None:
    intake, _, quarantine = make_intake()
    first = submit(intake, "1", "memo-7", note("One text."))
    for key, external_id in (("2", "memo-7"), ("3", "memo-8")):
        outcome = submit(intake, key, external_id, note("One text."))
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.duplicate_of) == (RejectionReason.DUPLICATE, first.document_id)
    assert len(quarantine.written) == 1


def test_a_redelivery_states_the_same_again_and_writes_nothing() -> None:
    intake, catalogue, quarantine = make_intake()
    first = submit(intake, "1", "memo-7", note("One text."))
    again = submit(intake, "1", "memo-7", note("One text."))
    assert again == first
    assert catalogue.stated == [first, first]
    assert len(quarantine.written) == 1


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (File(b"", "empty.txt"), RejectionReason.EMPTY),
        (File(b"  \n \n", "blank.txt"), RejectionReason.NO_TEXT),
        (File(b"x" * 2_000, "long.txt"), RejectionReason.TOO_LARGE),
        (File(b"x" * 200, "many.txt"), RejectionReason.TOO_LARGE),
        (File(b'{"prompt": "Write.", "answer": "Written."}', "example.json"), RejectionReason.MALFORMED),
    ],
)
def test_refuses_with_a_reason_and_a_hint(file: File, reason: RejectionReason) -> None:
    intake, _, quarantine = make_intake(max_file_bytes=1_000, max_chars=100)
    outcome = submit(intake, "1", "memo-7", file)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason and len(outcome.hint) > 10
    assert outcome.document_id == "doc_memo-7"
    assert quarantine.written == []


def test_takes_five_megabytes_of_text() -> None:
    intake, _, _ = make_intake()
    outcome = submit(intake, "1", "long", note("A long line of words that goes on.\n" * 143_000))
    assert isinstance(outcome, Accepted) and outcome.char_count > 5_000_000


def test_a_malformed_submission_is_accounted_for_under_an_id_of_its_own() -> None:
    def read() -> Submission:
        raise malformed("Not JSON.")

    intake, catalogue, _ = make_intake()
    outcome = take_in(intake, Receipt("1", "sub_1", "doc_spare", read))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.document_id) == (RejectionReason.MALFORMED, "doc_spare")
    assert catalogue.stated == [outcome]


def test_an_example_keeps_its_prompt() -> None:
    intake, _, quarantine = make_intake()
    file = File(b'{"kind": "example", "prompt": "Write a memo.", "answer": "To: all."}', "example.json")
    outcome = submit(intake, "1", "example-1", file, Kind.EXAMPLE)
    assert isinstance(outcome, Accepted) and outcome.kind is Kind.EXAMPLE
    assert quarantine.written[0][2] == Parsed("To: all.\n", "json", "Write a memo.")


def away() -> Unavailable:
    return Unavailable(Reason.HOST_UNAVAILABLE, "The host did not answer.")


def test_a_referenced_file_is_taken_in_like_any_other() -> None:
    uri = "https://files.example.com/memo.md"
    digest = hashlib.sha256(b"# Memo").hexdigest()
    intake, catalogue, _ = make_intake(fetcher=MemoryFetcher({uri: File(b"# Memo", "memo.md", "text/markdown")}))
    outcome = submit(intake, "1", "memo-7", Reference(uri, sha256=digest.upper(), size_bytes=6))
    assert isinstance(outcome, Accepted) and outcome.format == "md"
    again = submit(intake, "1", "memo-7", Reference(uri))
    assert again == outcome and catalogue.stated == [outcome, outcome]


@pytest.mark.parametrize("said", [{"sha256": "0" * 64}, {"size_bytes": 5}, {"size_bytes": 0}])
def test_other_bytes_than_those_announced_are_refused(said: dict[str, Any]) -> None:
    uri = "s3://papers/memo.md"
    intake, _, quarantine = make_intake(fetcher=MemoryFetcher({uri: File(b"# Memo", "memo.md")}))
    outcome = submit(intake, "1", "memo-7", Reference(uri, **said))
    assert isinstance(outcome, Refused) and outcome.reason == RejectionReason.CORRUPT
    assert quarantine.written == []


def test_a_reference_that_announces_too_much_is_not_even_fetched() -> None:
    fetcher = MemoryFetcher()
    intake, _, _ = make_intake(fetcher=fetcher, max_file_bytes=1_000)
    outcome = submit(intake, "1", "memo-7", Reference("s3://papers/memo.md", size_bytes=1_001))
    assert isinstance(outcome, Refused) and outcome.reason == RejectionReason.TOO_LARGE
    assert fetcher.asked == []


def test_a_host_that_does_not_answer_for_now_is_asked_again() -> None:
    uri, pauses = "https://files.example.com/memo.md", list[float]()
    fetcher = MemoryFetcher({uri: File(b"# Memo", "memo.md")}, *(away() for _ in FETCH_PAUSES))
    intake, _, _ = make_intake(fetcher=fetcher, sleep=pauses.append)
    assert isinstance(submit(intake, "1", "memo-7", Reference(uri)), Accepted)
    assert pauses == list(FETCH_PAUSES)


def test_a_host_that_never_answers_is_given_up() -> None:
    fetcher = MemoryFetcher({}, *(away() for _ in range(9)))
    intake, _, _ = make_intake(fetcher=fetcher)
    outcome = submit(intake, "1", "memo-7", Reference("https://files.example.com/memo.md"))
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.labels) == (RejectionReason.UNREACHABLE, LABELS)
    assert len(fetcher.asked) == len(FETCH_PAUSES) + 1


def test_a_withdrawal_waits_for_the_registry_and_asks_once() -> None:
    intake, catalogue, _ = make_intake()
    withdrawals, erasure = make_withdrawals(catalogue)
    first = submit(intake, "1", "memo-7", note("One text."))
    receipt = Receipt("2", "sub_2", "doc_spare", lambda: "memo-7")
    erasure.down = True
    with pytest.raises(Unavailable):
        withdraw(withdrawals, receipt)
    erasure.down = False
    assert withdraw(withdrawals, receipt) is None
    assert withdraw(withdrawals, receipt) is None
    assert erasure.requests == {"sub_2": first.document_id}


def test_a_withdrawal_of_nothing_is_told_again_alike() -> None:
    _, catalogue, _ = make_intake()
    withdrawals, erasure = make_withdrawals(catalogue)
    receipt = Receipt("2", "sub_2", "doc_spare", lambda: "memo-7")
    first = withdraw(withdrawals, receipt)
    assert first is not None and first.reason == RejectionReason.UNKNOWN_DOCUMENT
    assert withdraw(withdrawals, receipt) == first
    assert catalogue.stated == [first, first] and erasure.requests == {}
