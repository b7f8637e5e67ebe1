"""Overrides, approvals and decisions."""

from tailor.api.events.v1 import models_pb2
from tailor.api.registry.v1 import registry_pb2
from tests.evaluations import make_evaluated, make_figures
from tests.fakes.serving import ADAPTER, REFUSED_ADAPTER
from tests.unit.cli.conftest import Services, Tailor

NAME = "engagement-reports"
OVERRIDE = registry_pb2.OperatorDecision(
    kind=registry_pb2.OPERATOR_DECISION_KIND_OVERRIDE,
    specialist=NAME,
    adapter_digest=REFUSED_ADAPTER,
    key_id="key_1",
    reason="The board wants it today.",
    verdict=registry_pb2.DECISION_REFUSED,
)


def waiting() -> registry_pb2.CatalogueAdapter:
    figures = make_figures("rougeL", base=0.1, few_shot=0.15, candidate=0.23)
    return registry_pb2.CatalogueAdapter(
        adapter=models_pb2.AdapterTrained(digest=ADAPTER, specialist=NAME),
        evaluation=make_evaluated(ADAPTER, NAME, figures),
        decision=registry_pb2.DECISION_PASSED,
        reasons=["rougeL gains +0.130 over base"],
        state=registry_pb2.ADAPTER_STATE_WAITING_FOR_APPROVAL,
        advice=f"`tailor adapter approve {ADAPTER[:12]}`",
    )


def test_an_override_needs_a_reason_and_a_reason_an_override(tailor: Tailor, services: Services) -> None:
    assert tailor("adapter", "promote", NAME, REFUSED_ADAPTER, "--override").code == 2
    assert tailor("adapter", "promote", NAME, REFUSED_ADAPTER, "--reason", "because").code == 2
    assert services.registry.reasons == []


def test_an_override_sends_its_reason_and_says_that_it_is_one(tailor: Tailor, services: Services) -> None:
    promoted = tailor(
        "adapter", "promote", NAME, REFUSED_ADAPTER, "--override", "--reason", "The board wants it today."
    )
    assert "since generation 4, by an override." in promoted.out
    assert services.registry.reasons == ["The board wants it today."]


def test_adapters_print_what_to_do_on_a_line_that_can_be_copied(tailor: Tailor) -> None:
    lines = tailor("adapter", "list").err.splitlines()
    advice = f"`tailor specialist update {NAME}.toml`, then `tailor adapter evaluate {REFUSED_ADAPTER[:12]}`"
    assert f"{REFUSED_ADAPTER[:12]} next: {advice}" in lines


def test_approvals_show_the_figures_that_decide(tailor: Tailor, services: Services) -> None:
    services.registry.waiting = [waiting()]
    shown = tailor("adapter", "approvals").out
    assert "rougeL" in shown and "base +0.130 (+0.125 to +0.135)" in shown
    assert "few_shot +0.080 (+0.075 to +0.085)" in shown
    assert "parity (lower is better)" in shown
    assert f"{ADAPTER[:12]} waiting for approval; newest verdict passed: rougeL gains +0.130 over base" in shown


def test_says_that_nothing_waits(tailor: Tailor) -> None:
    assert tailor("adapter", "approvals").out == "Nothing waits for approval.\n"


def test_approves_and_declines_with_a_reason(tailor: Tailor, services: Services) -> None:
    approved = tailor("adapter", "approve", ADAPTER, "--reason", "good figures")
    assert f"All callers of {NAME} get {ADAPTER[:12]} since generation 4." in approved.out
    assert tailor("adapter", "decline", ADAPTER, "--reason", "too long").code == 0
    assert tailor("adapter", "decline", ADAPTER).code == 2
    assert services.registry.reasons == ["good figures", "too long"]


def test_decisions_and_the_audit_show_who_decided_and_why(tailor: Tailor, services: Services) -> None:
    services.registry.decisions = [OVERRIDE]
    for command in (["adapter", "decisions"], ["audit"]):
        shown = tailor(*command).out
        assert "override" in shown and "key_1" in shown and "The board wants it today." in shown
