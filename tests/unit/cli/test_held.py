"""Calls that wait for a second person."""

import json

from tailor.api.common.v1 import common_pb2
from tailor.api.held.v1 import held_pb2
from tests.unit.cli.conftest import Services, Tailor

ERASE = held_pb2.HeldCall(
    held_call_id="hld_erase",
    method="Erase",
    request=json.dumps({"document_ids": ["doc_" + "0" * 32], "reason": "court-order"}),
    requested_by="key_1",
    state=held_pb2.HELD_CALL_STATE_WAITING,
)
REIDENTIFY = held_pb2.HeldCall(
    held_call_id="hld_reidentify",
    method="Reidentify",
    request=json.dumps({"entity_type": "PERSON", "surrogate": "Helen Ward", "purpose": "claim 12 of the insurer"}),
    requested_by="key_2",
    state=held_pb2.HELD_CALL_STATE_APPROVED,
    decided_by="key_1",
)
CREATE_KEY = held_pb2.HeldCall(
    held_call_id="hld_key", method="CreateKey", request=json.dumps({"name": "deputy", "role": "ROLE_DATA_PROTECTION"})
)


def test_lists_the_held_calls_of_both_services(tailor: Tailor, services: Services) -> None:
    services.held.calls, services.held_reidentifications.calls = [ERASE], [REIDENTIFY]
    shown = tailor("held", "list").out
    assert all(text in shown for text in ("hld_erase", "hld_reidentify", "key_2", "waiting", "approved", "court-order"))
    listed = tailor("--output=json", "held", "list").document["held_calls"]
    assert [held["held_call_id"] for held in listed] == ["hld_erase", "hld_reidentify"]


def test_approves_and_declines_at_the_service_that_holds_the_call(tailor: Tailor, services: Services) -> None:
    services.held.calls, services.held_reidentifications.calls = [ERASE], [REIDENTIFY]
    assert "tailor held repeat hld_reidentify" in tailor("held", "approve", "hld_reidentify").out
    assert tailor("held", "decline", "hld_erase").code == 0
    assert (services.held_reidentifications.approved, services.held.declined) == (["hld_reidentify"], ["hld_erase"])
    assert services.held.approved == []
    unknown = tailor("held", "approve", "hld_nothing")
    assert unknown.code != 0 and "tailor held list" in unknown.err


def test_repeats_a_call_exactly_as_it_was_made(tailor: Tailor, services: Services) -> None:
    services.held.calls, services.held_reidentifications.calls = [ERASE, CREATE_KEY], [REIDENTIFY]
    assert "Sarah Jenkins" in tailor("held", "repeat", "hld_reidentify").out
    sent = services.anonymization.requests[-1]
    assert (sent.held_call_id, sent.surrogate, sent.purpose) == (
        "hld_reidentify",
        "Helen Ward",
        "claim 12 of the insurer",
    )
    assert "ers_1" in tailor("held", "repeat", "hld_erase").out
    erased = services.registry.erasures[-1]
    assert (erased.held_call_id, list(erased.document_ids), erased.reason) == (
        "hld_erase",
        ["doc_" + "0" * 32],
        "court-order",
    )
    assert "not shown again" in tailor("held", "repeat", "hld_key").out
    assert services.registry.keys[-1].role == common_pb2.ROLE_DATA_PROTECTION
    assert tailor("held", "repeat", "hld_nothing").code != 0


def test_an_erasure_that_is_held_names_every_batch(tailor: Tailor, services: Services) -> None:
    services.registry.four_eyes = True
    documents = [part for number in range(1001) for part in ("--document", f"doc_{number:032x}")]
    held = tailor("erasure", "create", *documents)
    assert held.code != 0
    assert "hld_1000" in held.err and "hld_1." in held.err
    assert services.registry.erasures == []
