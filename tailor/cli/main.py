"""The `tailor` command: a gRPC client and a Kafka publisher without privileged access."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tailor.cli.connections import Connections, Endpoints
from tailor.cli.output import Output, OutputFormat, print_error
from tailor.cli.session import CommandSession
from tailor.cli.tree import add_commands
from tailor.errors import TailorError

VALUED = ("--output", "-o", "--state-dir", "--api-key")
EPILOG = "`--output`, `--state-dir` and `--api-key` may come anywhere; `tailor --help` lists all global options."


class RootGroup(TyperGroup):
    """Moves global options to the front, and turns a TailorError into one line and exit status 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoist(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TailorError as error:
            print_error(error)
            raise typer.Exit(1) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, with a note on global options at the end of its help."""
        command = super().get_command(ctx, cmd_name)
        for documented in (command, *getattr(command, "commands", {}).values()):
            if documented is not None and not documented.epilog:
                documented.epilog = EPILOG
        return command


def hoist(args: list[str]) -> list[str]:
    """Move global options to the front. Arguments after `--` keep their places."""
    end = args.index("--") if "--" in args else len(args)
    front: list[str] = []
    rest: list[str] = []
    words = iter(args[:end])
    for word in words:
        if word.startswith(tuple(f"{name}=" for name in VALUED)):
            front.append(word)
        elif word in VALUED:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest + args[end:]


ADDRESSES = "Addresses"

app = typer.Typer(
    name="tailor",
    cls=RootGroup,
    help="Turn a company's documents into a specialised language model, and keep it specialised.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

add_commands(app)


def _address(service: str) -> Any:
    return typer.Option(
        f"--{service}-address",
        envvar=f"TAILOR_{service.upper()}_ADDRESS",
        metavar="HOST:PORT",
        rich_help_panel=ADDRESSES,
        help=f"The {service} service.",
    )


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tailor {version('tailor-platform')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    output: Annotated[
        OutputFormat,
        typer.Option(
            "--output",
            "-o",
            help="`json` and `yaml` write one document to standard output; progress goes to standard error in any case.",
        ),
    ] = OutputFormat.TABLE,
    state_dir: Annotated[
        Path,
        typer.Option(
            envvar="TAILOR_STATE_DIR",
            help="The embedded stack's directory; its addresses are used unless you give others.",
        ),
    ] = Path(".tailor"),
    api_key: Annotated[
        str,
        typer.Option(
            envvar="TAILOR_API_KEY", help="Your API key; by default, the embedded stack's first operator key."
        ),
    ] = "",
    kafka: Annotated[
        str,
        typer.Option(
            envvar="TAILOR_KAFKA_BOOTSTRAP_SERVERS",
            metavar="HOST:PORT,...",
            rich_help_panel=ADDRESSES,
            help="The Kafka brokers.",
        ),
    ] = "",
    kafka_user_files: Annotated[
        Path | None,
        typer.Option(
            envvar="TAILOR_KAFKA_USER_FILES",
            rich_help_panel=ADDRESSES,
            help="A folder with `kafka-USER.env` for the Kafka user of each topic to publish on.",
        ),
    ] = None,
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="TAILOR_TLS_CA_FILE",
            rich_help_panel=ADDRESSES,
            help="Use TLS, and verify services by this CA (PEM).",
        ),
    ] = None,
    ingestion: Annotated[str, _address("ingestion")] = "",
    anonymization: Annotated[str, _address("anonymization")] = "",
    synthetic: Annotated[str, _address("synthetic")] = "",
    training: Annotated[str, _address("training")] = "",
    evaluation: Annotated[str, _address("evaluation")] = "",
    registry: Annotated[str, _address("registry")] = "",
    inference: Annotated[str, _address("inference")] = "",
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Open the session that the command uses."""
    del show_version
    addresses = {
        "ingestion": ingestion,
        "anonymization": anonymization,
        "synthetic": synthetic,
        "training": training,
        "evaluation": evaluation,
        "registry": registry,
        "inference": inference,
    }
    connections = Connections(Endpoints(state_dir, api_key, addresses, kafka, tls_ca_file, kafka_user_files))
    context.call_on_close(connections.close)
    context.obj = CommandSession(Output(output), connections)


if __name__ == "__main__":
    app()
