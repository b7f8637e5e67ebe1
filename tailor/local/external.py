"""Own stores as parts of a stack: what Tailor needs is made there once, and they are watched from then on. They have no process here."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psycopg
import urllib3
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from minio.error import MinioException

from tailor.errors import TailorError
from tailor.events.access import apply_rules, apply_users, check_names
from tailor.events.provision import apply_topics
from tailor.events.topics import load_topics
from tailor.local.layout import BROKER, DATABASE, STORE, WITH_DATABASE
from tailor.local.own_stores import OwnKafka, OwnStore
from tailor.local.roles import apply_role_and_database
from tailor.local.secrets import ADMIN, Secrets
from tailor.local.state import ComponentState, Status
from tailor.local.store_access import StoreAccess, kafka_settings
from tailor.logging import get_logger
from tailor.storage.buckets import ACCESS, BUCKETS
from tailor.storage.provision import apply_buckets, apply_keys, open_admin

log = get_logger(__name__)

RETRY_SECONDS = 1.0
CHECK_SECONDS = 10.0


@dataclass(frozen=True)
class External:
    """One own store. `check` may block for a few seconds. It returns None if all that Tailor needs is there, else what is missing."""

    name: str
    check: Callable[[], str | None]
    addresses: Mapping[str, str]


class ExternalRunner:
    """Checks an own store again and again, until it is ready and afterwards."""

    def __init__(self, external: External, publish: Callable[[ComponentState], None]) -> None:
        self.ready = asyncio.Event()
        self.state = ComponentState(external.name, "waiting", "your own", external.addresses)
        self._external = external
        self._publish = publish

    async def run(self) -> None:
        """Check the store. Never returns: cancel the task."""
        while True:
            detail = await asyncio.to_thread(self._external.check)
            if detail is None:
                self.ready.set()
            else:
                self.ready.clear()
            self._say(
                "waiting" if detail is not None else "ready", "your own" if detail is None else f"your own: {detail}"
            )
            await asyncio.sleep(CHECK_SECONDS if detail is None else RETRY_SECONDS)

    async def stop(self) -> None:
        """Report the store as not watched any more. It goes on."""
        self._say("stopped", "")

    def _say(self, status: Status, detail: str) -> None:
        state = replace(self.state, state=status, detail=detail)
        if state != self.state:
            self.state = state
            self._publish(state)


def external_broker(access: StoreAccess, broker: OwnKafka) -> External:
    """An own Kafka."""
    provision = _Once(lambda: provision_kafka(access, broker))
    return External(
        BROKER, lambda: _attempt(provision, lambda: _check_kafka(access)), {"kafka": broker.bootstrap_servers}
    )


def external_store(access: StoreAccess, store: OwnStore) -> External:
    """An own object store."""
    provision = _Once(lambda: provision_store(access.secrets, store))
    return External(STORE, lambda: _attempt(provision, lambda: _check_store(access, store)), {"s3": store.endpoint})


def external_database(access: StoreAccess, address: str, *, has_administrator: bool) -> External:
    """An own database server."""
    provision = _Once(lambda: provision_database(access) if has_administrator else None)
    return External(DATABASE, lambda: _attempt(provision, lambda: _check_database(access)), {"postgresql": address})


def provision_kafka(access: StoreAccess, broker: OwnKafka) -> None:
    """Make topics, and users and rules at a broker that asks for a user. Does nothing without an administrator. Idempotent."""
    variables = access.kafka_admin()
    if variables is None:
        return
    check_names(broker.names)
    admin = KafkaAdminClient(client_id="tailor-up", **kafka_settings(variables).kafka_arguments())
    try:
        topics = load_topics().values()
        apply_topics(admin, topics, broker.plan)
        if broker.has_users:
            passwords = {user: access.secrets.kafka_password(user) for user in access.secrets.kafka_users}
            apply_users(admin, passwords, broker.sasl_mechanism, broker.names.username_of)
            for change in apply_rules(admin, topics, broker.names):
                log.info("rules of the broker", change=change)
    finally:
        admin.close()


def provision_store(secrets: Secrets, settings: OwnStore) -> None:
    """Make buckets and keys. Does nothing without an administrator. Idempotent."""
    if not settings.admin_access_key:
        return
    secret = settings.admin_secret_key.get_secret_value()
    store, admin = open_admin(
        settings.endpoint, settings.admin_access_key, secret, region=settings.region, secure=settings.secure
    )
    apply_buckets(store, settings.bucket_prefix)
    keys = {name: secrets.s3(name) for name in ACCESS}
    apply_keys(admin, {name: (key.access_key, key.secret_key) for name, key in keys.items()}, settings.bucket_prefix)


def provision_database(access: StoreAccess) -> None:
    """Make roles and databases. Idempotent."""
    url = access.database_url(ADMIN).replace("+psycopg", "")
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        for role in WITH_DATABASE:
            apply_role_and_database(connection, role, access.secrets.database_password(role))


class _Once:
    """Runs until it succeeded once."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work: Callable[[], None] | None = work

    def __call__(self) -> None:
        if self._work is not None:
            self._work()
            self._work = None


def _attempt(provision: Callable[[], None], check: Callable[[], str | None]) -> str | None:
    """What keeps the store from being ready; its own words, without credentials."""
    try:
        provision()
        return check()
    except TailorError as error:
        return error.message
    except (KafkaError, MinioException, urllib3.exceptions.HTTPError, psycopg.Error, ValueError, OSError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]


def _check_kafka(access: StoreAccess) -> str | None:
    """Ask as ingestion, which reads and writes most topics, for the topics that it must see."""
    settings = kafka_settings(access.kafka("ingestion"))
    admin = KafkaAdminClient(client_id="tailor-up", **settings.kafka_arguments())
    try:
        present = set(admin.list_topics())
    finally:
        admin.close()
    wanted = {
        settings.kafka_topic_prefix + name
        for name, topic in load_topics().items()
        if "ingestion" in (*topic.producers, *topic.consumers)
    }
    missing = sorted(wanted - present)
    return f"no topic {', '.join(missing)}, or no right to it" if missing else None


def _check_store(access: StoreAccess, settings: OwnStore) -> str | None:
    variables = access.s3("ingestion")
    store, _ = open_admin(
        settings.endpoint,
        variables["TAILOR_S3_ACCESS_KEY"],
        variables["TAILOR_S3_SECRET_KEY"],
        region=settings.region,
        secure=settings.secure,
    )
    bucket = settings.bucket_prefix + BUCKETS[0]
    return None if store.bucket_exists(bucket) else f"no bucket {bucket}, or no right to it"


def _check_database(access: StoreAccess) -> str | None:
    for role in WITH_DATABASE:
        with psycopg.connect(access.database_url(role).replace("+psycopg", ""), connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    return None
