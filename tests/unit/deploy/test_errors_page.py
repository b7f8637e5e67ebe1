"""The page of error reasons: every row is whole sentences and says what to do."""

import pytest

from deploy import errors_page
from deploy.errors_page import Use, says_what_to_do
from tailor.errors import Code, Reason


@pytest.mark.parametrize(
    "text",
    [
        "The teacher limits the rate of calls.",
        "messages",
        "REFUSALNEAREST",
        "Correct the field",
        "The setting is used by nobody.",
    ],
)
def test_a_cause_without_a_remedy_or_a_fragment_does_not_pass(text: str) -> None:
    assert not says_what_to_do([text])


@pytest.mark.parametrize(
    "text",
    [
        "Too many calls are waiting. Retry.",
        "`priority` must be between -100 and 100.",
        "There is no such run. `tailor run list` lists them.",
        "The run starts by itself.",
        "The process was killed; give it more memory.",
    ],
)
def test_a_remedy_is_recognised(text: str) -> None:
    assert says_what_to_do([text])


def test_every_text_of_a_row_is_a_sentence_and_one_of_them_names_the_remedy() -> None:
    assert says_what_to_do(["The hub could not be read.", "Try again."])
    assert not says_what_to_do(["Try again.", "response_format.json_schema"])


def test_a_reason_with_an_unclear_message_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        errors_page, "EXPLAINED", {reason: "Retry." for reason in Reason if reason is not Reason.QUEUE_FULL}
    )
    unclear = {Reason.QUEUE_FULL.value: Use({Code.RESOURCE_EXHAUSTED}, {"The queue is full.": None})}
    with pytest.raises(SystemExit, match=r"QUEUE_FULL.*says what to do"):
        errors_page.render(unclear)


def test_a_reason_without_a_message_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        errors_page, "EXPLAINED", {reason: "Retry." for reason in Reason if reason is not Reason.QUEUE_FULL}
    )
    with pytest.raises(SystemExit, match=r"QUEUE_FULL.*remove them from Reason"):
        errors_page.render({})
