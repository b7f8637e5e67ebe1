"""The root command: accepts global options anywhere, and prints an error as one line."""

from typing import Any

import typer
from typer.core import TyperGroup

from tailor.cli.output import print_error
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
