"""The next generation after a promotion, a rollback, and the start or end of a canary.

Every function raises Aborted if another decision was made since the expected generation."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from services.registry.domain import POLICY, Adapter, Serving, ServingCanary, Specialist
from tailor.errors import Aborted, FailedPrecondition, Reason


def serve_adapter(
    current: Serving, adapter: Adapter | None, specialist: Specialist, expected_generation: int
) -> Serving:
    """The adapter serves all callers; without an adapter, the base does."""
    _check_generation(current, expected_generation)
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


def end_serving(current: Serving) -> Serving:
    """Nothing answers to the name of a deleted specialist."""
    return Serving(
        specialist=current.specialist,
        generation=current.generation + 1,
        previous_digest=current.adapter_digest,
        ended=True,
    )


def was_overridden(generations: Sequence[Serving], adapter: Adapter | None) -> bool:
    """True if the newest generation that served the adapter did so by an override."""
    digest = adapter.digest if adapter else ""
    return bool(digest) and next((item.overridden for item in generations if item.adapter_digest == digest), False)


def has_incumbent(current: Serving, adapter: Adapter, merged: Collection[str]) -> bool:
    """True if a canary of the adapter can be compared: something serves on its base. `merged` adapters have a base of their own each."""
    is_merged = adapter.digest in merged or current.adapter_digest in merged
    return current.generation > 0 and current.base == adapter.base and not is_merged


def add_canary(
    current: Serving, adapter: Adapter, specialist: Specialist, percent: int, expected_generation: int
) -> Serving:
    """A share of the callers gets the adapter. Raises FailedPrecondition if it serves already, or another canary runs."""
    _check_generation(current, expected_generation)
    _check_policy(adapter, specialist)
    if current.canary is not None:
        raise FailedPrecondition(
            Reason.CANARY_RUNS,
            f"Another canary is running. Stop it with `tailor canary stop {specialist.name}`, or wait for it to end.",
        )
    if adapter.digest == current.adapter_digest:
        raise FailedPrecondition(Reason.SERVES_ALREADY, "The adapter already serves all callers.")
    canary = ServingCanary(
        adapter.digest, adapter.manifest, adapter.dataset_digest, specialist.system_prompt, percent=percent
    )
    return _renew(current, specialist, canary)


def remove_canary(current: Serving, specialist: Specialist, expected_generation: int) -> Serving:
    """The serving adapter serves all callers again. Raises FailedPrecondition if no canary is running."""
    _check_generation(current, expected_generation)
    if current.canary is None:
        raise FailedPrecondition(
            Reason.NO_CANARY,
            f"No canary is running. `tailor canary show {specialist.name}` shows how the last one ended.",
        )
    return _renew(current, specialist, None)


def _renew(current: Serving, specialist: Specialist, canary: ServingCanary | None) -> Serving:
    generation, private = current.generation + 1, specialist.private_prompts
    return replace(current, generation=generation, canary=canary, private_prompts=private)


def _check_generation(current: Serving, generation: int) -> None:
    if current.generation != generation:
        raise Aborted(
            Reason.GENERATION_MOVED,
            f"Current generation is {current.generation}, not {generation}. Reload and retry.",
            generation=str(current.generation),
        )


def _check_policy(adapter: Adapter, specialist: Specialist) -> None:
    if adapter.specialist != specialist.name or adapter.kind != POLICY:
        raise FailedPrecondition(Reason.WRONG_ADAPTER, "Only a policy adapter of this specialist can serve.")
