"""What serves next: after a promotion, a rollback, and while a canary runs. Rules alone."""

from dataclasses import dataclass, replace

from services.registry.domain import POLICY, Adapter, Specialist
from tailor.errors import Aborted, FailedPrecondition, Reason
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class ServingCanary:
    """A candidate that a share of the callers, in percent, gets instead of what serves."""

    adapter_digest: str
    manifest: Ref
    dataset_digest: str
    system_prompt: str
    percent: int


@dataclass(frozen=True)
class Serving:
    """Which adapter a specialist's name means; generation 0 is the base, before the first promotion."""

    specialist: str
    generation: int = 0
    adapter_digest: str = ""
    manifest: Ref | None = None
    dataset_digest: str = ""
    base: str = ""
    previous_digest: str = ""
    system_prompt: str = ""
    private_prompts: bool = False
    canary: ServingCanary | None = None


def next_serving(
    current: Serving, adapter: Adapter | None, specialist: Specialist, expected_generation: int
) -> Serving:
    """What serves all callers after a promotion (or, without an adapter, a return to the base); Aborted where somebody else was faster."""
    _expect(current, expected_generation)
    if adapter is not None:
        _check_policy(adapter, specialist)
    return Serving(
        specialist=specialist.name,
        generation=current.generation + 1,
        adapter_digest=adapter.digest if adapter else "",
        manifest=adapter.manifest if adapter else None,
        dataset_digest=adapter.dataset_digest if adapter else "",
        base=adapter.base if adapter else specialist.base,
        previous_digest=current.adapter_digest,
        system_prompt=specialist.system_prompt,
        private_prompts=specialist.private_prompts,
    )


def can_be_tried(current: Serving, adapter: Adapter) -> bool:
    """True where something serves on the adapter's own base, that a canary can be compared with."""
    return current.generation > 0 and current.base == adapter.base


def with_canary(
    current: Serving, adapter: Adapter, specialist: Specialist, percent: int, expected_generation: int
) -> Serving:
    """What serves while a share of the callers gets the adapter. Aborted where somebody else was faster, FailedPrecondition where it cannot
    be tried."""
    _expect(current, expected_generation)
    _check_policy(adapter, specialist)
    if current.canary is not None:
        raise FailedPrecondition(Reason.CANARY_RUNS, "Another canary runs; `tailor canary stop` takes it back.")
    if adapter.digest == current.adapter_digest:
        raise FailedPrecondition(Reason.SERVES_ALREADY, "The adapter serves all callers already.")
    if not can_be_tried(current, adapter):
        raise FailedPrecondition(
            Reason.NOTHING_TO_COMPARE,
            "Nothing serves on this adapter's base that it could be compared with; promote it.",
        )
    canary = ServingCanary(
        adapter.digest, adapter.manifest, adapter.dataset_digest, specialist.system_prompt, percent=percent
    )
    return _again(current, specialist, canary)


def without_canary(current: Serving, specialist: Specialist, expected_generation: int) -> Serving:
    """What serves once the canary was taken back. Aborted where somebody else was faster, FailedPrecondition where none runs."""
    _expect(current, expected_generation)
    if current.canary is None:
        raise FailedPrecondition(
            Reason.NO_CANARY, "No canary runs; `tailor canary show` tells what became of the last."
        )
    return _again(current, specialist, None)


def _again(current: Serving, specialist: Specialist, canary: ServingCanary | None) -> Serving:
    """What serves, as a new generation."""
    generation, private = current.generation + 1, specialist.private_prompts
    return replace(current, generation=generation, canary=canary, private_prompts=private)


def _expect(current: Serving, generation: int) -> None:
    if current.generation != generation:
        raise Aborted(
            Reason.GENERATION_MOVED,
            f"Generation {current.generation} serves, not {generation}: look again, then decide again.",
            generation=str(current.generation),
        )


def _check_policy(adapter: Adapter, specialist: Specialist) -> None:
    if adapter.specialist != specialist.name or adapter.kind != POLICY:
        raise FailedPrecondition(Reason.WRONG_ADAPTER, "Only a policy adapter of this specialist may serve.")
