"""The root command: global options may stand anywhere, and an error is one line."""

from typing import Any

import typer
from typer.core import TyperGroup

from tailor.cli.output import print_error
from tailor.errors import TailorError

FLAGS = ("--json",)
VALUED = ("--state-dir", "--api-key")
EPILOG = "`--json`, `--state-dir` and `--api-key` may stand anywhere; see `tailor --help` for all global options."


class Group(TyperGroup):
    """Moves global options to the front; turns a TailorError into one line and exit status 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, global options first."""
        return super().parse_args(ctx, hoist(args))

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TailorError as error:
            print_error(error)
            raise typer.Exit(1) from None

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, its help ending with what is global."""
        command = super().get_command(ctx, cmd_name)
        for found in (command, *getattr(command, "commands", {}).values()):
            if found is not None and not found.epilog:
                found.epilog = EPILOG
        return command


def hoist(args: list[str]) -> list[str]:
    """The arguments with global options in front; what follows `--` stays."""
    end = args.index("--") if "--" in args else len(args)
    front: list[str] = []
    rest: list[str] = []
    words = iter(args[:end])
    for word in words:
        if word in FLAGS or word.startswith(tuple(f"{name}=" for name in VALUED)):
            front.append(word)
        elif word in VALUED:
            front += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return front + rest + args[end:]
