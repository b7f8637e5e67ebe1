"""Commands of `tailor review` about strings that the barrier replaces in many documents, and is hardly right to."""

from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from tailor.api.anonymization.v1 import replaced_pb2 as pb
from tailor.cli.calls import first, pages
from tailor.cli.messages import to_dict
from tailor.cli.options import Limit, listed
from tailor.cli.output import bold, short
from tailor.cli.replays import start_replay
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_list
from tailor.columns import columns
from tailor.errors import FailedPrecondition, InvalidArgument, Reason
from tailor.list_columns import REPLACED

# Lists are counted when they are asked for, over all documents.
LIST_SECONDS = 60.0
STRING = "TYPE:SURROGATE, as `tailor review replaced` lists it, such as PERSON:winters."

Strings = Annotated[list[str], typer.Argument(metavar="TYPE:SURROGATE...", help=STRING)]


@listed
def replaced(
    session: CommandSession,
    request: pb.ListReplacedRequest,
    string: Annotated[
        str, typer.Argument(metavar="[TYPE:SURROGATE]", help="Show this string and ten places. Needs data-protection.")
    ] = "",
    *,
    strings: Annotated[
        bool, typer.Option("--strings", help="Show the strings themselves. Needs data-protection; each is recorded.")
    ] = False,
    limit: Limit = 50,
) -> None:
    """List strings that are replaced in many documents of many departments or sources, the most replaced first: hardly people."""
    if string:
        seen = _see(session, string)
        session.output.emit(seen, _describe_places(seen))
        return
    stub = session.connections.replaced
    items = first(limit, pages(stub.ListReplaced, request))
    values = [_see(session, name_of(item), without_places=True).value if strings else "" for item in items]
    document = {"strings": [to_dict(item) | {"value": value} for item, value in zip(items, values, strict=True)]}
    own = columns(None, ("string", lambda item: values[items.index(item)]))
    shown = columns(None, *own, *REPLACED) if strings else REPLACED
    emit_list(session, items, shown, document=document, empty="No string is replaced in many documents.")


def allow(
    session: CommandSession,
    strings: Strings,
    *,
    replay: Annotated[
        bool, typer.Option(help="Also send what passed under another policy through the barrier again.")
    ] = True,
) -> None:
    """Leave strings as they are from now on: they become terms of `[allow]` in the policy. Needs data-protection.

    Look at the places of each first, with `tailor review replaced TYPE:SURROGATE`. It is recorded who allowed them and when.
    """
    answer = _decide(session, strings, pb.REPLACED_DECISION_ALLOWED)
    document = to_dict(answer)
    sentence = "`tailor replay start` brings it to the documents that passed."
    if replay:
        try:
            document["replay"] = to_dict(start_replay(session, answer.policy.barrier_digest, all_documents=False))
            sentence = (
                "The replay runs. `tailor replay show ID` shows which documents only their owners can publish again."
            )
        except FailedPrecondition as error:
            if error.reason != Reason.REPLAY_RUNNING:
                raise
            sentence = "Another replay runs; run `tailor replay start` when it has ended."

    policy = f"Policy {short(answer.policy.policy_digest)} is in force, generation {answer.policy.generation}."
    session.output.emit(document, f"Allowed. {policy}", sentence)


def keep(session: CommandSession, strings: Strings) -> None:
    """Record that strings are personal and stay replaced; they no longer count as over-redaction. Needs data-protection."""
    answer = _decide(session, strings, pb.REPLACED_DECISION_KEPT)
    session.output.emit(answer, "Recorded. The policy is the same.")


def name_of(item: pb.ReplacedString) -> str:
    """The argument that names a string."""
    return f"{item.entity_type}:{item.surrogate}"


def _decide(
    session: CommandSession, strings: list[str], decision: "pb.ReplacedDecision.ValueType"
) -> pb.DecideReplacedResponse:
    answer = pb.DecideReplacedResponse()
    for string in strings:
        entity_type, surrogate = _read(string)
        request = pb.DecideReplacedRequest(entity_type=entity_type, surrogate=surrogate, decision=decision)
        answer = session.connections.replaced.DecideReplaced(request, timeout=LIST_SECONDS)
    return answer


def _see(session: CommandSession, string: str, *, without_places: bool = False) -> pb.GetReplacedResponse:
    entity_type, surrogate = _read(string)
    request = pb.GetReplacedRequest(entity_type=entity_type, surrogate=surrogate, without_places=without_places)
    return session.connections.replaced.GetReplaced(request, timeout=LIST_SECONDS)


def _read(string: str) -> tuple[str, str]:
    entity_type, _, surrogate = string.partition(":")
    if not surrogate:
        raise InvalidArgument(Reason.INVALID_ARGUMENT, f"Give a string as {STRING}")
    return entity_type.upper(), surrogate


def _describe_places(seen: pb.GetReplacedResponse) -> Iterator[str | Text]:
    counts = seen.counts
    where = f"{counts.documents} documents of {counts.departments} departments and {counts.sources} sources"
    yield bold(f"{counts.entity_type}: {seen.value}")
    yield f"replaced {counts.times} times in {where}"
    for place in seen.places:
        labels = ", ".join(filter(None, (place.department, place.source)))
        yield Text(f"\n{place.document_id} {labels}".rstrip(), style="dim")
        yield Text.assemble(place.text[: place.start], (seen.value, "bold underline"), place.text[place.end :])
    argument = name_of(counts)
    yield f"\nIf it is not personal: tailor review allow '{argument}'. If it is: tailor review keep '{argument}'."
