"""The pace of a worker."""

from services.training.methods.base import RECENT_STEPS, Meter


def test_the_time_left_goes_by_the_newest_steps_and_not_by_the_mean_since_the_start() -> None:
    meter = Meter()
    assert meter.remaining(0, 100) == 0.0
    now = 1000.0
    meter.begin(0, now)
    for step in range(1, 21):
        now += 60.0
        meter.end_step(step, now)
    assert meter.remaining(20, 100) == 80 * 60.0
    for step in range(21, 21 + RECENT_STEPS):
        now += 6.0
        meter.end_step(step, now)
    assert meter.remaining(30, 100) == 70 * 6.0


def test_a_worker_that_resumes_counts_its_own_steps_only() -> None:
    meter = Meter()
    meter.begin(50, 1000.0)
    meter.end_step(51, 1010.0)
    assert meter.remaining(51, 60) == 90.0
