"""What the embedded broker itself forgets when it is killed: acknowledged records that it no longer has (docs/decisions/0006)."""

import os
import signal
import tempfile
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.chaos_found import read_topics
from tailor.cli.producer import KafkaRecordProducer
from tailor.cli.records import SUBMITTED, Record
from tailor.local import stack
from tailor.local.layout import BROKER
from tailor.settings import KafkaSettings

KILLS = 3
SECONDS_BETWEEN = 4.0
READY_SECONDS = 60.0


def measure_embedded_broker() -> dict[str, Any]:
    """Publish without pause, kill the broker several times, and count what it has at the end of what it acknowledged."""
    with tempfile.TemporaryDirectory(prefix="tailor-chaos-broker-", ignore_cleanup_errors=True) as directory:
        state = Path(directory).resolve()
        running = stack.up(state, only=(BROKER,))
        try:
            running.wait_ready(READY_SECONDS)
            settings = stack.connection(state).publisher
            acknowledged: set[str] = set()
            for _ in range(KILLS):
                acknowledged |= _publish_until_killed(running, settings, len(acknowledged))
            kept = {record.key.decode() for _, record in read_topics(settings, [SUBMITTED])}
        finally:
            stack.down(state)
    return {
        "broker": f"noida-db {version('noida-db')}",
        "kills": KILLS,
        "acknowledged": len(acknowledged),
        "forgotten": len(acknowledged - kept),
    }


def _publish_until_killed(running: stack.Stack, settings: KafkaSettings, first: int) -> set[str]:
    """Publish one record after the other, kill the broker, and block until it is back. Returns the keys that it acknowledged."""
    acknowledged: set[str] = set()
    deadline = time.monotonic() + SECONDS_BETWEEN
    process = running.snapshot().components[BROKER].process
    assert process is not None
    with closing(KafkaRecordProducer(settings)) as producer:
        while time.monotonic() < deadline:
            key = f"record-{first + len(acknowledged)}"
            producer.send(Record(SUBMITTED, key, b"x", {}))()
            acknowledged.add(key)
        os.kill(process.pid, signal.SIGKILL)
    while running.snapshot().components[BROKER].process in (process, None):
        time.sleep(0.1)
    running.wait_ready(READY_SECONDS)
    return acknowledged
