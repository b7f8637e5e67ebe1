"""The session that every command receives: its connections and its output."""

from dataclasses import dataclass

from tailor.cli.connections import Connections
from tailor.cli.output import Output


@dataclass(frozen=True)
class CommandSession:
    """One invocation of the command line."""

    output: Output
    connections: Connections
