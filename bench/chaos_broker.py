"""What the embedded broker itself forgets when it is killed: acknowledged records that it no longer has (docs/decisions/0006)."""

import os
import signal
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.chaos_found import read_topics
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.records import SUBMITTED, Record
from tailor.errors import TailorError
from tailor.local import stack
from tailor.local.layout import BROKER
from tailor.settings import KafkaSettings

KILLS = 3
SECONDS_BETWEEN = 4.0
READY_SECONDS = 180.0


def measure_embedded_broker() -> dict[str, Any]:
    """Publish without pause, kill the broker several times, and count what it has at the end of what it acknowledged.

    If it does not start or does not come back, the figures have an `error` in place of counts.
    """
    broker = f"noida-db {version('noida-db')}"
    try:
        acknowledged, kept = _measure()
    except TailorError as error:
        return {"broker": broker, "error": str(error)}
    return {
        "broker": broker,
        "kills": KILLS,
        "acknowledged": len(acknowledged),
        "forgotten": len(acknowledged - kept),
    }


def describe_embedded_broker(figures: Mapping[str, Any]) -> str:
    """The figures in one sentence."""
    if "error" in figures:
        return f"The embedded broker ({figures['broker']}) was not measured: {figures['error']}"
    return (
        f"The embedded broker ({figures['broker']}) forgot {figures['forgotten']} of {figures['acknowledged']} acknowledged records when it was "
        f"killed {figures['kills']} times."
    )


def _measure() -> tuple[set[str], set[str]]:
    """The keys that the broker acknowledged, and those that it has at the end."""
    with tempfile.TemporaryDirectory(prefix="tailor-chaos-broker-", ignore_cleanup_errors=True) as directory:
        state = Path(directory).resolve()
        acknowledged: set[str] = set()
        try:
            running = stack.up(state, only=(BROKER,))
            running.wait_ready(READY_SECONDS)
            settings = stack.connection(state).publisher
            for _ in range(KILLS):
                acknowledged |= _publish_until_killed(running, settings, len(acknowledged))
            kept = {record.key.decode() for _, record in read_topics(settings, [SUBMITTED])}
        finally:
            stack.down(state)
    return acknowledged, kept


def _publish_until_killed(running: stack.Stack, settings: KafkaSettings, first: int) -> set[str]:
    """Publish one record after the other, kill the broker, and block until it is back. Returns the keys that it acknowledged."""
    acknowledged: set[str] = set()
    deadline = time.monotonic() + SECONDS_BETWEEN
    process = running.snapshot().components[BROKER].process
    assert process is not None
    with closing(KafkaRecordProducer(lambda topic: settings)) as producer:
        while time.monotonic() < deadline:
            key = f"record-{first + len(acknowledged)}"
            producer.send(Record(SUBMITTED, key, b"x", {}))()
            acknowledged.add(key)
        os.kill(process.pid, signal.SIGKILL)
    while running.snapshot().components[BROKER].process in (process, None):
        time.sleep(0.1)
    running.wait_ready(READY_SECONDS)
    return acknowledged
