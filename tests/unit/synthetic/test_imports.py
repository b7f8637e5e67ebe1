"""Imported rows: which chats are accepted, and which of them specialists may use."""

from dataclasses import replace

import pytest

from services.synthetic.domain import Grounding
from services.synthetic.import_domain import ImportSpec, Messages, RowRejection, find_rejection, is_shared, make_row
from tailor.errors import InvalidArgument

SPEC = ImportSpec("chat", "CC-BY-4.0", 100, "chats.jsonl")


def chat(number: int) -> Messages:
    return (("user", f"Who is Ada {number}?"), ("assistant", f"Ada is number {number}."))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((("system", "Be kind."), ("user", "A?"), ("assistant", "B.")), None),
        ((("user", "A?"), ("assistant", "B."), ("user", "C?"), ("assistant", "D.")), None),
        ((("system", "Be kind."),), RowRejection.EMPTY),
        ((("user", "A?"), ("system", "Be kind."), ("assistant", "B.")), RowRejection.ROLES),
        ((("user", "A?"), ("tool", "B.")), RowRejection.ROLES),
    ],
)
def test_a_chat_has_user_and_assistant_in_turn(messages: Messages, expected: RowRejection | None) -> None:
    assert find_rejection(messages) is expected


def test_a_row_is_an_example_of_the_import() -> None:
    row = make_row("chat", (("system", "Be kind."), *chat(1)))
    assert (row.task, row.made_by, row.system_prompt, row.document_ids) == ("example", "import:chat", "Be kind.", ())
    assert (row.messages, row.grounding) == (chat(1), Grounding.PEOPLE)


@pytest.mark.parametrize(
    ("values", "field_name"),
    [
        ({"name": "Chat"}, "name"),
        ({"name": "../chat"}, "name"),
        ({"licence": ""}, "licence"),
        ({"licence": "see the web page"}, "licence"),
        ({"share_percent": 0}, "share_percent"),
        ({"share_percent": 101}, "share_percent"),
        ({"source": "x" * 201}, "source"),
    ],
)
def test_refuses_an_invalid_import_with_the_field(values: dict[str, str | int], field_name: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        replace(SPEC, **values)  # type: ignore[arg-type]  # several types in one dictionary
    assert set(raised.value.field_violations) == {field_name}


def test_a_share_is_a_fixed_part_of_the_rows() -> None:
    rows = [make_row("chat", chat(number)) for number in range(1000)]
    few = {row for row in rows if is_shared(row, 10)}
    assert 60 < len(few) < 140
    assert few <= {row for row in rows if is_shared(row, 30)}
    assert all(is_shared(row, 100) for row in rows)
    assert few == {row for row in rows if is_shared(replace(row, document_ids=("txt_1",)), 10)}
