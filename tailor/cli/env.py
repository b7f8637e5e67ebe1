"""`tailor env`: the addresses of the embedded stack, for a shell."""

import shlex
from typing import TYPE_CHECKING

import typer

from tailor.cli.session import session_of

if TYPE_CHECKING:
    from tailor.local.stack import Connection


app = typer.Typer()


@app.command("env")
def env(context: typer.Context) -> None:
    """Print the embedded stack's addresses and key as shell variables: `eval "$(tailor env)"`.

    The key itself is not printed; the shell reads it from its file.
    """
    from tailor.local import stack

    session = session_of(context)
    place = stack.connection(session.connections.state_dir)
    variables = addresses(place)
    key = f'export TAILOR_API_KEY="$(cat {shlex.quote(str(place.operator_key_file))})"'
    lines = [*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), key]
    document = variables | {"TAILOR_API_KEY_FILE": str(place.operator_key_file)}
    session.output.emit(
        document, lambda console: console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)
    )


def addresses(place: "Connection") -> dict[str, str]:
    """Every address that the documentation's commands use, by the name of its variable."""
    services = {f"TAILOR_{service.upper()}_ADDRESS": address for service, address in place.service_addresses.items()}
    return {
        "TAILOR_KAFKA_BOOTSTRAP_SERVERS": place.publisher.kafka_bootstrap_servers,
        **services,
        "TAILOR_OPENAI_URL": f"{place.inference_url}/v1",
        "TAILOR_CONSOLE_URL": place.console_url,
    }
