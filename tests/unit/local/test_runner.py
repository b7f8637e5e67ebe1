"""Restart delays and log rotation."""

from pathlib import Path

from tailor.local.runner import LOG_BYTES, Backoff, rotate


def test_doubles_the_delay_after_each_short_life_up_to_ten_seconds() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_resets_the_delay_after_a_long_life() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.after(1.0)
    assert backoff.after(31.0) == 0.5
    assert backoff.after(1.0) == 1.0


def test_rotates_a_large_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "broker.log"
    rotate(log)
    log.write_bytes(b"x" * 10)
    rotate(log)
    assert log.exists()
    log.write_bytes(b"x" * (LOG_BYTES + 1))
    rotate(log)
    assert [file.name for file in log.parent.iterdir()] == ["broker.log.1"]
