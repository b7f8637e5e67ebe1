"""When a worker pauses for callers, for how long, and that nothing is computed differently."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.training.methods.callers_first import PAUSE_SECONDS, QUIET_SECONDS, Pauses, hook_modules, make_way
from tailor.compute_lock import TURN_SECONDS, ComputeLock

LAYER_SECONDS = 0.1


class Clock:
    """A clock that only moves when somebody sleeps or computes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0
        self.turns: list[float] = []

    def take_turn(self) -> None:
        self.turns.append(self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


def pauses(clock: Clock, call_waits: Callable[[], bool]) -> Pauses:
    return Pauses(call_waits, clock.take_turn, now=lambda: clock.now, sleep=clock.sleep)


def train(clock: Clock, pausing: Pauses, seconds: float) -> float:
    """Compute layers for so long, with a pause after each. Returns the share of the time that training ran."""
    begun, ran = clock.now, 0.0
    while clock.now < begun + seconds:
        clock.now += LAYER_SECONDS
        ran += LAYER_SECONDS
        pausing.pause()
    return ran / (clock.now - begun)


def test_does_not_pause_if_nobody_waits() -> None:
    clock = Clock()
    assert train(clock, pauses(clock, lambda: False), 60) == pytest.approx(1)
    assert clock.slept == 0


def test_pauses_until_the_answer_is_there_and_a_moment_longer() -> None:
    clock = Clock()
    ends = clock.now + 1
    pauses(clock, lambda: clock.now < ends).pause()
    assert ends + QUIET_SECONDS <= clock.now < ends + 2 * QUIET_SECONDS


def test_the_moment_between_two_tokens_ends_no_pause() -> None:
    clock = Clock()
    begun = clock.now
    # Of every 40 ms, the reader has the token for 10.
    pauses(clock, lambda: clock.now < begun + 1 and (clock.now - begun) % 0.04 < 0.03).pause()
    assert clock.now >= begun + 1


def test_a_call_that_comes_after_a_while_always_finds_a_whole_pause() -> None:
    clock = Clock()
    waits = False
    pausing = pauses(clock, lambda: waits)
    for _ in range(5):
        waits = False
        train(clock, pausing, 10)
        waits = True
        clock.now += LAYER_SECONDS
        before = clock.now
        pausing.pause()
        assert clock.now - before == pytest.approx(PAUSE_SECONDS, abs=0.01)


def test_beside_an_endless_answer_training_runs_half_of_the_time_in_short_turns() -> None:
    clock = Clock()
    begun = clock.now
    assert 0.45 < train(clock, pauses(clock, lambda: True), 600) < 0.6
    assert clock.turns[0] - begun == pytest.approx(PAUSE_SECONDS, abs=2 * LAYER_SECONDS)
    between = [later - earlier for earlier, later in itertools.pairwise(clock.turns)]
    assert all(seconds == pytest.approx(2 * TURN_SECONDS, abs=3 * LAYER_SECONDS) for seconds in between)


def test_short_calls_without_end_leave_training_half_of_the_time() -> None:
    clock = Clock()
    # Each call is followed by a gap that is just long enough to end the pause.
    share = train(clock, pauses(clock, lambda: clock.now % 0.4 < 0.3), 600)
    assert share > 0.45


def test_a_call_every_two_seconds_leaves_training_more_than_three_fifths_and_takes_no_turn() -> None:
    clock = Clock()
    share = train(clock, pauses(clock, lambda: clock.now % 2 < 0.6), 600)
    assert 0.6 < share < 0.8
    assert not clock.turns


def test_a_held_lock_pauses_every_module_forwards_and_backwards_and_changes_no_weight(tmp_path: Path) -> None:
    undisturbed, _ = step()
    clock = Clock()
    pausing, calls = pauses(clock, ComputeLock(tmp_path / "lock").is_held), 0

    def pause() -> None:
        nonlocal calls
        calls += 1
        # A module takes its time, so that there is credit again.
        clock.now += PAUSE_SECONDS * 2
        pausing.pause()

    with ComputeLock(tmp_path / "lock").hold(), removing(hook_modules(pause)):
        paused, modules = step()
    assert calls == 2 * modules
    assert clock.slept == pytest.approx(calls * PAUSE_SECONDS, rel=0.01)
    assert all((before == after).all() for before, after in zip(undisturbed, paused, strict=True))


def test_hooks_do_not_gather_from_step_to_step() -> None:
    calls = 0

    def pause() -> None:
        nonlocal calls
        calls += 1

    counts = []
    model = make_model()
    with removing(hook_modules(pause)):
        for _ in range(3):
            calls = 0
            run(model)
            counts.append(calls)
    assert counts[0] == counts[1] == counts[2] > 0
    calls = 0
    run(model)
    assert calls == 0


def test_a_process_without_a_lock_has_no_hooks() -> None:
    from torch.nn.modules import module

    before = len(module._global_forward_hooks)
    with removing(make_way(None)):
        assert len(module._global_forward_hooks) == before


@contextmanager
def removing(remove: Callable[[], None]) -> Iterator[None]:
    """Remove the hooks at the end."""
    try:
        yield
    finally:
        remove()


def make_model() -> Any:
    import torch

    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 4))


def run(model: Any) -> None:
    import torch

    rows = torch.linspace(-1, 1, 24).view(3, 8)
    model(rows).pow(2).sum().backward()


def step() -> tuple[list[Any], int]:
    """The weights after one optimiser step, and how many modules the model has, itself included."""
    import torch

    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    run(model)
    optimizer.step()
    return [weights.detach().clone() for weights in model.parameters()], len(list(model.modules()))
