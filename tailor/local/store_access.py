"""How an identity reaches the stores of a stack, embedded or own: addresses and its own credentials, as `TAILOR_*` variables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from tailor.errors import FailedPrecondition, Reason
from tailor.local.layout import SERVICES
from tailor.local.own_stores import OwnKafka, OwnStores
from tailor.local.ports import Ports
from tailor.local.secrets import ADMIN, Secrets
from tailor.settings import KafkaSettings, ServiceSettings

SUPERUSER = "postgres"


@dataclass(frozen=True)
class StoreAccess:
    """The stores of one stack."""

    ports: Ports
    secrets: Secrets
    own_stores: OwnStores

    def kafka(self, user: str) -> dict[str, str]:
        """The variables of a user of the broker."""
        broker = self.own_stores.kafka
        if broker is None:
            return {
                "TAILOR_KAFKA_BOOTSTRAP_SERVERS": self.ports.address("broker"),
                "TAILOR_KAFKA_CLIENT_MODULE": "tailor.local.noida_workarounds",
            }
        variables = _kafka_place(broker)
        if user not in SERVICES and broker.outside_servers:
            variables["TAILOR_KAFKA_BOOTSTRAP_SERVERS"] = broker.outside_servers
        if broker.has_users:
            variables["TAILOR_KAFKA_SASL_MECHANISM"] = broker.sasl_mechanism
            variables["TAILOR_KAFKA_SASL_USERNAME"] = broker.names.username_of(user)
            variables["TAILOR_KAFKA_SASL_PASSWORD"] = self.secrets.kafka_password(user)
        return variables

    def kafka_admin(self) -> dict[str, str] | None:
        """The variables of the broker's administrator; None if a broker that asks for one has no administrator here."""
        broker = self.own_stores.kafka
        if broker is None:
            return self.kafka(ADMIN)
        if not broker.has_users:
            return _kafka_place(broker)
        if not broker.admin_username:
            return None
        return _kafka_place(broker) | {
            "TAILOR_KAFKA_SASL_MECHANISM": broker.admin_mechanism or broker.sasl_mechanism,
            "TAILOR_KAFKA_SASL_USERNAME": broker.admin_username,
            "TAILOR_KAFKA_SASL_PASSWORD": broker.admin_password.get_secret_value(),
        }

    @property
    def s3_endpoint(self) -> str:
        """HOST:PORT of the object store."""
        return self.ports.address("s3") if self.own_stores.s3 is None else self.own_stores.s3.endpoint

    def s3(self, identity: str) -> dict[str, str]:
        """The variables of an identity at the object store; ADMIN may do everything."""
        store, key = self.own_stores.s3, self.secrets.s3(identity)
        access_key, secret_key = key.access_key, key.secret_key
        if store is not None and identity == ADMIN:
            access_key, secret_key = store.admin_access_key, store.admin_secret_key.get_secret_value()
        variables = {
            "TAILOR_S3_ENDPOINT": self.s3_endpoint,
            "TAILOR_S3_ACCESS_KEY": access_key,
            "TAILOR_S3_SECRET_KEY": secret_key,
        }
        if store is not None:
            variables |= {
                "TAILOR_S3_SECURE": str(store.secure),
                "TAILOR_S3_REGION": store.region,
                "TAILOR_S3_BUCKET_PREFIX": store.bucket_prefix,
            }
        return variables

    def database_url(self, role: str) -> str:
        """The address of a service's database, as its role; ADMIN gets the administrator's own."""
        database = self.own_stores.database
        address = self.ports.address("database") if database is None else database.address
        if role != ADMIN:
            return f"postgresql+psycopg://{role}:{self.secrets.database_password(role)}@{address}/{role}"
        if database is None:
            return f"postgresql+psycopg://{SUPERUSER}:{self.secrets.database_password(ADMIN)}@{address}/{SUPERUSER}"
        password = database.admin_password.get_secret_value()
        if not password:
            raise FailedPrecondition(
                Reason.INVALID_SETTINGS_FILE,
                "stores.database has no admin_password; set it to do this as the administrator.",
            )
        return f"postgresql+psycopg://{database.admin_username}:{password}@{address}/{database.admin_database}"


def kafka_settings(variables: Mapping[str, str]) -> KafkaSettings:
    """The settings of a Kafka client from its variables."""
    return KafkaSettings(**_fields(variables))


def s3_settings(variables: Mapping[str, str]) -> ServiceSettings:
    """The settings of an object store's client from its variables."""
    return ServiceSettings(**_fields(variables))


def librdkafka_properties(variables: Mapping[str, str]) -> str:
    """The settings of a client that uses librdkafka, such as kcat, from the same variables: a property per line."""
    properties = {
        "security.protocol": variables.get("TAILOR_KAFKA_SECURITY_PROTOCOL", ""),
        "ssl.ca.location": variables.get("TAILOR_KAFKA_CA_FILE", ""),
        "sasl.mechanisms": variables.get("TAILOR_KAFKA_SASL_MECHANISM", ""),
        "sasl.username": variables.get("TAILOR_KAFKA_SASL_USERNAME", ""),
        "sasl.password": variables.get("TAILOR_KAFKA_SASL_PASSWORD", ""),
    }
    return "".join(f"{name}={value}\n" for name, value in properties.items() if value)


def _fields(variables: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name.removeprefix("TAILOR_").lower(): value for name, value in variables.items()}
    for name in ("kafka_sasl_password", "s3_secret_key"):
        if name in fields:
            fields[name] = SecretStr(fields[name])
    return fields


def _kafka_place(broker: OwnKafka) -> dict[str, str]:
    variables = {
        "TAILOR_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "TAILOR_KAFKA_SECURITY_PROTOCOL": broker.security_protocol,
        "TAILOR_KAFKA_TOPIC_PREFIX": broker.topic_prefix,
        "TAILOR_KAFKA_GROUP_PREFIX": broker.group_prefix,
    }
    return variables if broker.ca_file is None else variables | {"TAILOR_KAFKA_CA_FILE": str(broker.ca_file)}
