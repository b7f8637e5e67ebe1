"""One word for what an adapter is, and advice that can be followed as it is printed."""

import shlex
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from services.registry.domain import AdapterState, Approval, Decision
from services.registry.rules.states import AdapterFacts, advise, decide_state
from tailor.api.registry.v1 import registry_pb2
from tailor.cli.main import app

PASSED = AdapterFacts(decision=Decision.PASSED)
DIGEST = "3f2a" * 16


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (AdapterFacts(), AdapterState.EVALUATING),
        (AdapterFacts(is_reward=True), AdapterState.REWARD),
        (AdapterFacts(intermediate=True), AdapterState.INTERMEDIATE),
        (AdapterFacts(intermediate=True, decision=Decision.REFUSED), AdapterState.REFUSED),
        (AdapterFacts(decision=Decision.STALE), AdapterState.EVALUATING),
        (AdapterFacts(decision=Decision.REFUSED), AdapterState.REFUSED),
        (AdapterFacts(decision=Decision.UNDECIDED), AdapterState.UNDECIDED),
        (PASSED, AdapterState.PASSED),
        (replace(PASSED, approval=Approval.WAITING), AdapterState.WAITING_FOR_APPROVAL),
        (replace(PASSED, approval=Approval.DECLINED), AdapterState.DECLINED),
        (replace(PASSED, approval=Approval.ENDED, served_before=True), AdapterState.REPLACED),
        (replace(PASSED, withdrawn=True), AdapterState.WITHDRAWN),
        (replace(PASSED, canary=True), AdapterState.CANARY),
        (replace(PASSED, serving=True), AdapterState.SERVING),
    ],
)
def test_an_adapter_has_one_state(facts: AdapterFacts, state: AdapterState) -> None:
    assert decide_state(facts) is state


def test_an_adapter_that_serves_is_never_called_refused() -> None:
    serving = AdapterFacts(serving=True, decision=Decision.REFUSED)
    assert decide_state(serving) is AdapterState.SERVING
    assert decide_state(replace(serving, overridden=True)) is AdapterState.OVERRIDDEN


def test_an_override_counts_only_for_the_adapter_that_serves_by_it() -> None:
    assert decide_state(AdapterFacts(overridden=True, decision=Decision.REFUSED)) is AdapterState.REFUSED


def test_a_retired_adapter_is_retired_whatever_else_it_was() -> None:
    assert decide_state(replace(PASSED, retired=True, serving=True)) is AdapterState.RETIRED


def test_the_contract_has_the_same_states() -> None:
    words = {
        name.removeprefix("ADAPTER_STATE_").replace("_", " ").lower()
        for name in registry_pb2.AdapterState.DESCRIPTOR.values_by_name
    }
    assert words - {"unspecified"} == {state.value for state in AdapterState}


@pytest.mark.parametrize("state", list(AdapterState))
def test_every_command_of_the_advice_exists_and_takes_these_arguments(state: AdapterState) -> None:
    commands = advise(state, "engagement-reports", DIGEST).split("`")[1::2]
    for command in commands:
        program, *arguments = shlex.split(command.partition(" > ")[0])
        assert program == "tailor"
        arguments = [argument if not argument.endswith(".toml") else __file__ for argument in arguments]
        result = CliRunner().invoke(app, [*arguments], env={"TAILOR_REGISTRY_ADDRESS": "localhost:1"})
        # 2 is a usage error; without a service, everything else fails later.
        assert result.exit_code != 2, result.output


def test_a_refusal_says_how_to_change_the_gate_and_how_to_override_it() -> None:
    advice = advise(AdapterState.REFUSED, "engagement-reports", DIGEST)
    assert "`tailor specialist update engagement-reports.toml`" in advice
    assert '`tailor adapter promote engagement-reports 3f2a3f2a3f2a --override --reason "WHY"`' in advice
