"""`tailor env`: the addresses of the embedded stack, for a shell."""

import shlex
from typing import TYPE_CHECKING

from tailor.cli.session import CommandSession
from tailor.settings import KafkaSettings

if TYPE_CHECKING:
    from tailor.local.stack import Connection


def env(session: CommandSession) -> None:
    """Print the embedded stack's addresses and key as shell variables: `eval "$(tailor env)"`.

    The key itself is not printed; the shell reads it from its file.
    """
    from tailor.local import stack

    place = stack.connection(session.connections.state_dir)
    variables = addresses(place) | {"TAILOR_STATE_DIR": str(session.connections.state_dir.resolve())}
    key = f'export TAILOR_API_KEY="$(cat {shlex.quote(str(place.operator_key_file))})"'
    lines = [*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), key]
    document = variables | {"TAILOR_API_KEY_FILE": str(place.operator_key_file)}
    if place.own_stores.kafka is not None:
        # kcat reads its settings from there.
        lines.append(f"export KCAT_CONFIG={shlex.quote(str(place.kcat_file))}")
        document["KCAT_CONFIG"] = str(place.kcat_file)
    if place.publisher.kafka_sasl_username:
        file = place.publisher_password_file
        lines.append(f'export TAILOR_KAFKA_SASL_PASSWORD="$(cat {shlex.quote(str(file))})"')
        document["TAILOR_KAFKA_SASL_PASSWORD_FILE"] = str(file)
    session.output.emit(document, lines)


def addresses(place: "Connection") -> dict[str, str]:
    """Every address that the documentation's commands use, by the name of its variable."""
    services = {f"TAILOR_{service.upper()}_ADDRESS": address for service, address in place.service_addresses.items()}
    return {
        "TAILOR_KAFKA_BOOTSTRAP_SERVERS": place.publisher.kafka_bootstrap_servers,
        **_kafka(place.publisher),
        **services,
        "TAILOR_OPENAI_URL": f"{place.inference_url}/v1",
        "TAILOR_CONSOLE_URL": place.console_url,
    }


def _kafka(publisher: KafkaSettings) -> dict[str, str]:
    """The variables of a publisher besides the address, if Kafka is your own; the password is in its file."""
    variables = {
        "TAILOR_KAFKA_SECURITY_PROTOCOL": publisher.kafka_security_protocol,
        "TAILOR_KAFKA_SASL_USERNAME": publisher.kafka_sasl_username or "",
        "TAILOR_KAFKA_SASL_MECHANISM": publisher.kafka_sasl_mechanism if publisher.kafka_sasl_username else "",
        "TAILOR_KAFKA_CA_FILE": str(publisher.kafka_ca_file or ""),
        "TAILOR_KAFKA_TOPIC_PREFIX": publisher.kafka_topic_prefix,
    }
    defaults = {"TAILOR_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}
    return {name: value for name, value in variables.items() if value != defaults.get(name, "")}
