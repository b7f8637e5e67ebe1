"""Your own stores in an embedded one's place: what is read, refused, and given to each service."""

import os
from pathlib import Path

import pytest

from tailor.errors import InvalidArgument
from tailor.events.access import PUBLISHER
from tailor.local.component import Component
from tailor.local.environment import StackPlan, service_environment
from tailor.local.external import External
from tailor.local.layout import BROKER, DATABASE, STORE, Layout
from tailor.local.own_stores import choose_stores, load_own_stores
from tailor.local.ports import Ports
from tailor.local.secrets import ADMIN, ensure
from tailor.local.store_access import kafka_settings
from tailor.local.supervisor import components, write_kcat_file

SETTINGS = """\
[stores.kafka]
bootstrap_servers = "kafka.example:9093"
outside_servers = "kafka.example:9094"
security_protocol = "SASL_SSL"
admin_username = "root"
admin_password = "kafka-secret"
topic_prefix = "acme."
[stores.s3]
endpoint = "objects.example:9000"
secure = true
admin_access_key = "minioadmin"
admin_secret_key = "s3-secret"
[stores.database]
address = "database.example:5432"
admin_password = "sql-secret"
[ingestion]
max_text_chars = 5
"""


def make_plan(root: Path, settings: str = SETTINGS) -> StackPlan:
    layout = Layout(root)
    root.mkdir(exist_ok=True)
    layout.settings_file.write_text(settings, encoding="utf-8")
    return StackPlan(layout, Ports(20000), ensure(layout), own_stores=load_own_stores(layout))


def test_a_service_gets_the_own_addresses_with_its_own_credentials(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    environment = service_environment("ingestion", plan, os.environ)
    assert environment["TAILOR_KAFKA_BOOTSTRAP_SERVERS"] == "kafka.example:9093"
    assert environment["TAILOR_KAFKA_SASL_USERNAME"] == "tailor-ingestion"
    assert environment["TAILOR_KAFKA_SASL_PASSWORD"] == plan.secrets.kafka_password("ingestion")
    assert environment["TAILOR_KAFKA_TOPIC_PREFIX"] == "acme."
    assert "TAILOR_KAFKA_CLIENT_MODULE" not in environment, "the remedies are for the embedded broker"
    assert (environment["TAILOR_S3_ENDPOINT"], environment["TAILOR_S3_SECURE"]) == ("objects.example:9000", "True")
    assert "@database.example:5432/ingestion" in environment["TAILOR_DATABASE_URL"]
    assert "TAILOR_STORES" not in "".join(environment)


def test_kcat_signs_in_as_the_publisher_and_only_where_kafka_is_ones_own(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    write_kcat_file(plan)
    file = plan.layout.kcat_file
    assert file.read_text(encoding="utf-8").splitlines() == [
        "security.protocol=SASL_SSL",
        "sasl.mechanisms=SCRAM-SHA-512",
        "sasl.username=tailor-publisher",
        f"sasl.password={plan.secrets.kafka_password(PUBLISHER)}",
    ]
    assert file.stat().st_mode & 0o077 == 0
    write_kcat_file(make_plan(tmp_path, settings=""))
    assert not file.exists()


def test_no_service_gets_an_administrators_secret(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for service in ("ingestion", "registry", "console", "training"):
        values = "\n".join(service_environment(service, plan, os.environ).values())
        assert not any(secret in values for secret in ("kafka-secret", "s3-secret", "sql-secret"))


def test_publishers_use_their_own_listener(tmp_path: Path) -> None:
    publisher = kafka_settings(make_plan(tmp_path).stores.kafka("publisher"))
    assert publisher.kafka_bootstrap_servers == "kafka.example:9094"
    assert publisher.kafka_sasl_username == "tailor-publisher"


def test_the_administrator_is_the_owners(tmp_path: Path) -> None:
    stores = make_plan(tmp_path).stores
    admin = stores.kafka_admin()
    assert admin is not None and admin["TAILOR_KAFKA_SASL_USERNAME"] == "root"
    assert stores.s3(ADMIN)["TAILOR_S3_ACCESS_KEY"] == "minioadmin"
    assert stores.database_url(ADMIN) == "postgresql+psycopg://postgres:sql-secret@database.example:5432/postgres"
    without = make_plan(tmp_path / "other", SETTINGS.replace('admin_username = "root"\n', "")).stores
    assert without.kafka_admin() is None


def test_the_embedded_counterpart_does_not_start(tmp_path: Path) -> None:
    parts = {part.name: part for part in components(make_plan(tmp_path), {}, ())}
    assert all(isinstance(parts[name], External) for name in (BROKER, STORE, DATABASE))
    only_kafka = SETTINGS[: SETTINGS.index("[stores.s3]")]
    mixed = {part.name: part for part in components(make_plan(tmp_path / "mixed", only_kafka), {}, (BROKER, STORE))}
    assert isinstance(mixed[BROKER], External) and isinstance(mixed[STORE], Component)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ('[stores.kafka]\nbootstrap_servers = "kafka"\n', r"stores\.kafka\.bootstrap_servers"),
        ('[stores.kafka]\nservers = "kafka:9092"\n', r"stores\.kafka\."),
        ('[stores.s3]\nendpoint = "https://objects.example"\n', r"stores\.s3\.endpoint"),
        ("[stores.redis]\n", r"stores\.redis"),
        ('[stores.kafka]\nbootstrap_servers = "k:1"\nsecurity_protocol = "TLS"\n', r"stores\.kafka\.security_protocol"),
    ],
)
def test_a_wrong_field_is_refused_by_name(tmp_path: Path, settings: str, place: str) -> None:
    with pytest.raises(InvalidArgument, match=place):
        make_plan(tmp_path, settings)


def test_options_hold_until_the_next_start_without_them(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    choose_stores(layout, {"kafka": {"bootstrap_servers": "kafka.example:9092", "admin_password": 'a"b\\c'}})
    chosen = load_own_stores(layout).kafka
    assert chosen is not None and chosen.admin_password.get_secret_value() == 'a"b\\c'
    assert layout.chosen_stores_file.stat().st_mode & 0o777 == 0o600
    choose_stores(layout, {})
    assert load_own_stores(layout).kafka is None
