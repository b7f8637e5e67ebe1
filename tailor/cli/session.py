"""The session that every command receives: its connections and its output."""

from dataclasses import dataclass

import typer

from tailor.cli.connections import Connections
from tailor.cli.output import Output


@dataclass(frozen=True)
class CommandSession:
    """One invocation of the command line."""

    output: Output
    connections: Connections


def session_of(context: typer.Context) -> CommandSession:
    """The session that the root command opened."""
    session: CommandSession = context.obj
    return session
