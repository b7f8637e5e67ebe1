"""The page of calls that wait for a second person."""

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.domain import Role
from tailor.api.held.v1 import held_pb2
from tests.unit.console.world import World


def _held(number: int, method: str, **fields: object) -> held_pb2.HeldCall:
    return held_pb2.HeldCall(
        held_call_id=f"hld_{number:032x}",
        method=method,
        request='{"surrogate": "<b>Helen Ward</b>"}',
        requested_by="key_anna",
        state=held_pb2.HELD_CALL_STATE_WAITING,
        create_time=Timestamp(seconds=1_700_000_000 + number),
        **fields,  # type: ignore[arg-type]
    )


def test_data_protection_sees_who_asks_for_what_and_how_to_approve_it() -> None:
    world = World()
    world.held = {"registry": (_held(1, "Erase"),), "anonymization": (_held(2, "Reidentify"),)}
    page = world.signed_in(Role.DATA_PROTECTION).get("/held").text
    assert page.index("Reidentify") < page.index("Erase")
    assert "tailor held approve" in page and "waiting" in page and "key_anna" in page
    assert "<b>Helen" not in page and "&lt;b&gt;Helen" in page


def test_nobody_else_sees_it() -> None:
    for role in set(Role) - {Role.DATA_PROTECTION}:
        assert World().signed_in(role).get("/held").status_code == 403, role


def test_the_page_has_no_button_because_the_console_cannot_approve() -> None:
    world = World()
    world.held = {"registry": (_held(1, "Erase"),)}
    assert 'method="post" action="/held' not in world.signed_in(Role.DATA_PROTECTION).get("/held").text


def test_a_service_that_does_not_answer_is_named_beside_the_calls_of_the_other() -> None:
    world = World()
    world.held = {"registry": (_held(1, "Erase"),)}
    world.unhealthy = {"anonymization"}
    page = world.signed_in(Role.DATA_PROTECTION).get("/held").text
    assert "Erase" in page and "anonymization does not answer" in page
