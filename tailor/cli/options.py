"""Arguments and options that several commands have."""

from typing import Annotated

import typer

SpecialistName = Annotated[str, typer.Argument(metavar="SPECIALIST", help="The specialist's name.")]
SpecialistOption = Annotated[str, typer.Option(help="Only those of this specialist.")]
AdapterName = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="The adapter's digest, or at least its first 6 digits.")
]
Limit = Annotated[int, typer.Option(min=1, help="Max items to list.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why. Stays on record, without personal data.")]
Month = Annotated[str, typer.Option(metavar="YYYY-MM", help="The month, in UTC; the current one by default.")]
Generation = Annotated[
    int | None,
    typer.Option(
        "--expected-generation", min=0, help="Fail unless this generation serves; by default, the current one."
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until every ready replica serves the change.")]
