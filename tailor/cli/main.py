"""The `tailor` command: a gRPC client and a Kafka publisher, never a back door."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tailor.cli import (
    adapters,
    anonymize,
    ask,
    audit,
    canary,
    datasets,
    demo,
    documents,
    env,
    erase,
    events,
    keys,
    models,
    publish,
    runs,
    specialists,
    stack,
    trace,
)
from tailor.cli.connections import Connections, Endpoints
from tailor.cli.group import Group
from tailor.cli.output import JsonOutput, TextOutput
from tailor.cli.session import Session

PLACES = "Where Tailor is"

app = typer.Typer(
    name="tailor",
    cls=Group,
    help="Turn a company's documents into a specialised language model, and keep it specialised.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)

stack.register(app)
env.register(app)
publish.register(app)
app.add_typer(specialists.app, name="specialist")
documents.register(app)
audit.register(app)
erase.register(app)
anonymize.register(app)
datasets.register(app)
app.add_typer(runs.app, name="runs")
adapters.register(app)
app.add_typer(canary.app, name="canary")
ask.register(app)
trace.register(app)
events.register(app)
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
demo.register(app)


def _address(service: str) -> Any:
    return typer.Option(
        f"--{service}-address",
        envvar=f"TAILOR_{service.upper()}_ADDRESS",
        metavar="HOST:PORT",
        rich_help_panel=PLACES,
        help=f"The {service} service.",
    )


@app.callback()
def root(
    context: typer.Context,
    *,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Write one JSON document to standard output; everything else to standard error."),
    ] = False,
    state_dir: Annotated[
        Path,
        typer.Option(envvar="TAILOR_STATE_DIR", help="The embedded stack's directory, used where no address is named."),
    ] = Path(".tailor"),
    api_key: Annotated[
        str, typer.Option(envvar="TAILOR_API_KEY", help="Your key; the embedded stack's operator key if none.")
    ] = "",
    kafka: Annotated[
        str,
        typer.Option(
            envvar="TAILOR_KAFKA_BOOTSTRAP_SERVERS", metavar="HOST:PORT,...", rich_help_panel=PLACES, help="The broker."
        ),
    ] = "",
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(envvar="TAILOR_TLS_CA_FILE", rich_help_panel=PLACES, help="Use TLS, verified by this CA (PEM)."),
    ] = None,
    ingestion: Annotated[str, _address("ingestion")] = "",
    anonymization: Annotated[str, _address("anonymization")] = "",
    synthetic: Annotated[str, _address("synthetic")] = "",
    training: Annotated[str, _address("training")] = "",
    evaluation: Annotated[str, _address("evaluation")] = "",
    registry: Annotated[str, _address("registry")] = "",
    inference: Annotated[str, _address("inference")] = "",
) -> None:
    """Open the session that the command works in."""
    addresses = {
        "ingestion": ingestion,
        "anonymization": anonymization,
        "synthetic": synthetic,
        "training": training,
        "evaluation": evaluation,
        "registry": registry,
        "inference": inference,
    }
    connections = Connections(Endpoints(state_dir, api_key, addresses, kafka, tls_ca_file))
    context.call_on_close(connections.close)
    context.obj = Session(JsonOutput() if as_json else TextOutput(), connections)


if __name__ == "__main__":
    app()
