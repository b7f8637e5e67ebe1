"""A specialist's limits on rows: checked, and unchanged over the wire."""

import pytest

from services.registry import wire
from services.registry.domain import Specialist
from services.registry.rules.checks import check_specialist
from tailor.api.events.v1 import models_pb2
from tailor.codec import decode
from tailor.errors import InvalidArgument
from tailor.values import OwnTask, RowPolicy

RISK = OwnTask("risk-assessment", "Assess the risk of the finding.")


def specialist(rows: RowPolicy) -> Specialist:
    return Specialist("reports", "smollm2", "lora", rows=rows)


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        (RowPolicy(max_row_tokens=63), "rows.max_row_tokens"),
        (RowPolicy(max_row_tokens=-1), "rows.max_row_tokens"),
        (RowPolicy(max_row_tokens=64, min_answer_tokens=64), "rows.min_answer_tokens"),
        (RowPolicy(min_answer_tokens=-1), "rows.min_answer_tokens"),
        (RowPolicy(max_rows_per_document=-1), "rows.max_rows_per_document"),
        (RowPolicy(max_answer_percent=-1), "rows.max_answer_percent"),
        (RowPolicy(max_train_tokens=-1), "rows.max_train_tokens"),
        (RowPolicy(max_document_percent=-1), "rows.max_document_percent"),
        (RowPolicy(max_document_percent=101), "rows.max_document_percent"),
        (RowPolicy(held_out_percent=51), "rows.held_out_percent"),
        (RowPolicy(held_out_percent=-1), "rows.held_out_percent"),
        (RowPolicy(max_held_out_rows=-1), "rows.max_held_out_rows"),
        (RowPolicy(tasks=("report", "raport")), "rows.tasks[1]"),
        (RowPolicy(tasks=("answer", "answer")), "rows.tasks[1]"),
        (RowPolicy(own_tasks=(OwnTask("Risk Assessment", "Assess it."),)), "rows.own_tasks[0].name"),
        (RowPolicy(own_tasks=(OwnTask("report", "Write it."),)), "rows.own_tasks[0].name"),
        (RowPolicy(own_tasks=(RISK, RISK)), "rows.own_tasks[1].name"),
        (RowPolicy(own_tasks=(OwnTask("risk", " "),)), "rows.own_tasks[0].instruction"),
        (RowPolicy(own_tasks=(OwnTask("risk", "x" * 2001),)), "rows.own_tasks[0].instruction"),
        (RowPolicy(own_tasks=tuple(OwnTask(f"t{n}", "Do it.") for n in range(21))), "rows.own_tasks"),
        (RowPolicy(replay=("../chats",), replay_percent=10), "rows.replay[0]"),
        (RowPolicy(replay=("chats", "chats"), replay_percent=10), "rows.replay[1]"),
        (RowPolicy(replay=("chats",)), "rows.replay_percent"),
        (RowPolicy(replay=("chats",), replay_percent=91), "rows.replay_percent"),
        (RowPolicy(replay_percent=10), "rows.replay_percent"),
    ],
)
def test_refuses_an_invalid_limit_with_its_field(rows: RowPolicy, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_specialist(specialist(rows))
    assert list(refused.value.field_violations) == [field]


@pytest.mark.parametrize(
    "rows",
    [
        RowPolicy(),
        RowPolicy(max_document_percent=0),
        RowPolicy(max_row_tokens=64, max_rows_per_document=4, max_answer_percent=250, max_train_tokens=10**12),
        RowPolicy(min_answer_tokens=20, held_out_percent=50, max_held_out_rows=7, replay=("chats",), replay_percent=90),
        RowPolicy(tasks=("report", "risk-assessment"), own_tasks=(RISK, OwnTask("x" * 63, "y" * 2000))),
    ],
)
def test_admits_valid_limits_and_keeps_them_over_the_wire(rows: RowPolicy) -> None:
    definition = specialist(rows)
    check_specialist(definition)
    assert wire.to_specialist(wire.from_specialist(definition)) == definition


def test_a_definition_without_limits_makes_rows_of_everything() -> None:
    assert wire.to_specialist(models_pb2.SpecialistChanged(name="reports")).rows == RowPolicy()
    assert decode(RowPolicy, models_pb2.RowPolicy(held_out_percent=0, max_row_tokens=400)) == RowPolicy(
        max_row_tokens=400
    )


def test_another_limit_is_another_definition() -> None:
    assert not specialist(RowPolicy()).same_definition(specialist(RowPolicy(max_row_tokens=400)))
