"""The Kafka-protocol broker from the wheel `noida-db`. It writes its data to disk about once per second."""

from importlib.util import find_spec
from pathlib import Path

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from tailor.errors import FailedPrecondition, Reason
from tailor.events.topics import Topic, load_topics
from tailor.local.component import RECHECK_SECONDS, Component
from tailor.local.environment import base_environment
from tailor.local.layout import BROKER, Layout
from tailor.local.ports import Ports

HOUR_MS = 3_600_000


def broker(layout: Layout, ports: Ports) -> Component:
    """The broker's component. Ready when every topic exists."""
    data = layout.data(BROKER)
    port = ports["broker"]
    return Component(
        name=BROKER,
        command=(
            str(wheel_directory("noida_db") / "noida-db"),
            "start",
            "--data-dir",
            str(data),
            "--host",
            "127.0.0.1",
            "--only",
            "kafka",
            "--kafka-port",
            str(port),
        ),
        environment=base_environment(BROKER, layout, {"HOME": str(data)}),
        directory=data,
        check=lambda: _check(ports.address("broker")),
        addresses={"kafka": ports.address("broker")},
        prepare=_make_executable,
        recheck_seconds=RECHECK_SECONDS,
    )


def wheel_directory(package: str) -> Path:
    """The directory of a wheel of the embedded stack. Raises FailedPrecondition(NOT_INSTALLED)."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FailedPrecondition(Reason.NOT_INSTALLED, f"{package} is missing; install tailor-platform[local].")
    return Path(spec.origin).parent


def _make_executable() -> None:
    binary = wheel_directory("noida_db") / "noida-db"
    if binary.stat().st_mode & 0o111 != 0o111:
        binary.chmod(0o755)


def _check(bootstrap: str) -> str | None:
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000, bootstrap_timeout_ms=1000)
    except (KafkaError, OSError):
        return ""
    try:
        existing = set(admin.list_topics())
        for topic in load_topics().values():
            if topic.name not in existing:
                _create(admin, topic)
    except (KafkaError, OSError):
        return "its topics"
    finally:
        admin.close()
    return None


def _create(admin: KafkaAdminClient, topic: Topic) -> None:
    if topic.retention_hours is None:
        settings = {"cleanup.policy": "compact"}
    else:
        settings = {"cleanup.policy": "delete", "retention.ms": str((topic.kept_hours or 0) * HOUR_MS)}
    try:
        admin.create_topics([NewTopic(topic.name, topic.partitions, 1, topic_configs=settings)])
    except TopicAlreadyExistsError:
        return
