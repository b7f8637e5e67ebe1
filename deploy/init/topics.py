"""Create the topics of `proto/topics.yaml`, the users that services and publishers are at the broker, and what each of them may do.

A repeated run updates what differs and takes away what is no longer listed. `--grow` raises topics to the numbers of partitions in
`TAILOR_KAFKA_PARTITIONS`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from kafka.errors import KafkaError
from pydantic import Field

from deploy.init.credentials import DEFAULT_FILE, load_credentials
from tailor.errors import TailorError
from tailor.events.access import KafkaNames, apply_rules, apply_users, users
from tailor.events.provision import TopicPlan, apply_topics, find_short_memory, grow_topics
from tailor.events.topics import load_topics
from tailor.settings import KafkaSettings


class Settings(KafkaSettings):
    """The broker's address, its administrator's credentials, and how an installation is laid out there."""

    kafka_replication_factor: int = Field(3, ge=1, le=9)
    kafka_min_insync_replicas: int = Field(2, ge=1, le=9)
    # Partitions by topic, for those that need more than topics.yaml says.
    kafka_partitions: dict[str, int] = Field(default_factory=dict)
    # `users`: SCRAM users with the passwords of `stores_file`, and their rules. `rules`: rules only, for users that have certificates or
    # tokens, or that something else creates. `none`: neither, for a broker without an authorizer.
    kafka_access: Literal["users", "rules", "none"] = "users"
    # The mechanism of the users that are created; the administrator may sign in by another.
    kafka_user_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    # The form of the users' principals; rules of other principals are not changed.
    kafka_principal: str = "User:tailor-{name}"
    # The users outside, who publish documents.
    kafka_publishers: list[str] = Field(default_factory=lambda: ["publisher"])
    stores_file: Path = DEFAULT_FILE

    def plan(self) -> TopicPlan:
        """How the topics are laid out."""
        return TopicPlan(
            self.kafka_replication_factor,
            self.kafka_min_insync_replicas,
            self.kafka_topic_prefix,
            self.kafka_partitions,
        )

    def names(self) -> KafkaNames:
        """The names of the installation."""
        publishers = tuple(self.kafka_publishers)
        return KafkaNames(self.kafka_principal, self.kafka_topic_prefix, self.kafka_group_prefix, publishers)


def apply(admin: Any, settings: Settings) -> Iterator[str]:
    """Bring the broker to what is listed, and yield one line per change. Idempotent. Raises KafkaError, ValueError or TailorError."""
    topics, names = load_topics().values(), settings.names()
    yield from apply_topics(admin, topics, settings.plan())
    yield from _warn_of_short_memory(admin)
    if settings.kafka_access == "users":
        credentials = load_credentials(settings.stores_file)
        passwords = {user: credentials[user].kafka_password for user in users(topics, names)}
        apply_users(admin, passwords, settings.kafka_user_mechanism, names.username_of)
        yield f"users {', '.join(map(names.username_of, passwords))}"
    if settings.kafka_access != "none":
        yield from apply_rules(admin, topics, names)


def _warn_of_short_memory(admin: Any) -> Iterator[str]:
    """A warning about the broker's own configuration, which a managed one may not show."""
    try:
        warning = find_short_memory(admin, load_topics().values())
    except (KafkaError, KeyError) as error:
        warning = f"warning: the broker does not show its offsets.retention.minutes ({type(error).__name__})."
    if warning:
        yield warning


def main() -> None:
    """Read `TAILOR_KAFKA_*`, and create topics, users and rules."""
    import kafka

    parser = argparse.ArgumentParser(prog="python -m deploy.init.topics", description=__doc__)
    parser.add_argument("--grow", action="store_true", help="raise topics to the partitions of TAILOR_KAFKA_PARTITIONS")
    arguments = parser.parse_args()
    settings = Settings()
    try:
        admin = kafka.KafkaAdminClient(client_id="tailor-init", **settings.kafka_arguments())
        try:
            if arguments.grow:
                for line in grow_topics(admin, load_topics().values(), settings.plan()):
                    sys.stdout.write(line + "\n")
            for line in apply(admin, settings):
                sys.stdout.write(line + "\n")
        finally:
            admin.close()
    except (KafkaError, TailorError, ValueError, KeyError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
