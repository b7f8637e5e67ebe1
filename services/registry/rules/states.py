"""The state of an adapter as one word, and the commands that come next. Every page and command shows this state."""

from dataclasses import dataclass

from services.registry.domain import AdapterState, Approval, Decision

SHORT_DIGEST = 12


@dataclass(frozen=True)
class AdapterFacts:
    """What is known of an adapter.

    `intermediate` means that its run's next stage starts from it, `withdrawn` that its newest canary was withdrawn. `decision` is the
    verdict on its newest evaluation.
    """

    is_reward: bool = False
    retired: bool = False
    serving: bool = False
    overridden: bool = False
    canary: bool = False
    withdrawn: bool = False
    served_before: bool = False
    approval: Approval | None = None
    intermediate: bool = False
    decision: Decision | None = None


def decide_state(facts: AdapterFacts) -> AdapterState:
    """The state. What callers get comes first, then the gate's verdict, then what became of an adapter that passed."""
    served = AdapterState.OVERRIDDEN if facts.overridden else AdapterState.SERVING
    first = (
        (facts.is_reward, AdapterState.REWARD),
        (facts.retired, AdapterState.RETIRED),
        (facts.serving, served),
        (facts.canary, AdapterState.CANARY),
        (facts.intermediate and facts.decision is None, AdapterState.INTERMEDIATE),
        (facts.decision in (None, Decision.STALE), AdapterState.EVALUATING),
        (facts.decision is Decision.UNDECIDED, AdapterState.UNDECIDED),
        (facts.decision is Decision.REFUSED, AdapterState.REFUSED),
    )
    return next((state for holds, state in first if holds), None) or _state_of_passed(facts)


def _state_of_passed(facts: AdapterFacts) -> AdapterState:
    if facts.approval is Approval.WAITING:
        return AdapterState.WAITING_FOR_APPROVAL
    if facts.approval is Approval.DECLINED:
        return AdapterState.DECLINED
    if facts.withdrawn:
        return AdapterState.WITHDRAWN
    return AdapterState.REPLACED if facts.served_before else AdapterState.PASSED


def advise(state: AdapterState, specialist: str, adapter_digest: str) -> str:
    """The next steps of an operator, with commands that work as they are printed; empty if nothing needs to be done."""
    adapter = adapter_digest[:SHORT_DIGEST]
    change = (
        f"`tailor specialist show {specialist} --toml > {specialist}.toml`, edit the file, "
        f"`tailor specialist update {specialist}.toml`, then `tailor adapter evaluate {adapter}`"
    )
    override = f'To serve it all the same: `tailor adapter promote {specialist} {adapter} --override --reason "WHY"`'
    advice = {
        AdapterState.UNDECIDED: f"To evaluate more rows or change the gate: {change}. {override}",
        AdapterState.REFUSED: f"To change the recipe, the rows or the gate: {change}. {override}",
        AdapterState.WAITING_FOR_APPROVAL: f'`tailor adapter approve {adapter}`, or `tailor adapter decline {adapter} --reason "WHY"`',
        AdapterState.PASSED: f"`tailor adapter promote {specialist} {adapter}` makes it serve",
        AdapterState.DECLINED: f"`tailor adapter promote {specialist} {adapter}` makes it serve all the same",
        AdapterState.REPLACED: f"`tailor adapter promote {specialist} {adapter}` makes it serve again",
        AdapterState.WITHDRAWN: (
            f"`tailor canary show {specialist}` shows why; `tailor adapter promote {specialist} {adapter}` makes it serve"
        ),
        AdapterState.INTERMEDIATE: f"`tailor adapter evaluate {adapter}` evaluates it all the same",
        AdapterState.OVERRIDDEN: f"`tailor adapter rollback {specialist}` makes the previous adapter serve again",
    }
    return advice.get(state, "")
