"""`tailor key`: API keys."""

from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from tailor.api.common.v1 import common_pb2
from tailor.api.registry.v1 import registry_pb2
from tailor.cli import ids
from tailor.cli.options import listed
from tailor.cli.session import CommandSession
from tailor.cli.tables import emit_pages
from tailor.list_columns import KEYS


class KeyRole(Enum):
    """The role of a key's holder."""

    CALLER = "caller"
    EXPERT = "expert"
    ENGINEER = "engineer"
    OPERATOR = "operator"
    DATA_PROTECTION = "data-protection"


def create(  # noqa: PLR0917 - options of a command
    session: CommandSession,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[KeyRole, typer.Option(help="The role of the key's holder.")] = KeyRole.CALLER,
    specialist: Annotated[
        list[str] | None, typer.Option(help="A specialist that the key may use; repeatable. By default, all.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method that the key may call, such as `Generate`; repeatable. By default, all methods of the role."
        ),
    ] = None,
    rate: Annotated[int, typer.Option(min=0, help="Max calls per minute on each replica; 0 for no limit.")] = 0,
    days: Annotated[int | None, typer.Option(min=1, help="Days until the key expires; by default, never.")] = None,
) -> None:
    """Create a key. Its secret is shown only once."""
    request = registry_pb2.CreateKeyRequest(
        name=name,
        role=common_pb2.Role.Value(f"ROLE_{role.name}"),
        specialists=specialist or [],
        methods=method or [],
        calls_per_minute=rate,
    )
    if days is not None:
        request.expire_time.CopyFrom(_in_days(days))
    answer = session.connections.registry.CreateKey(request)

    how = "Send the secret as `authorization: Bearer ...`; it is not shown again:"
    session.output.emit(answer, f"{answer.key.key_id} ({role.value}). {how}", answer.secret)


@listed
def list_keys(session: CommandSession, request: registry_pb2.ListKeysRequest) -> None:
    """List keys without their secrets, newest first."""
    shown = KEYS.pick("key, name, role, specialists, methods, calls per minute, state, expires, created by")
    emit_pages(session, session.connections.registry.ListKeys, request, shown)


def revoke(
    session: CommandSession,
    key: Annotated[str, typer.Argument(help="The key's id, or its first digits.", callback=ids.key_id)],
) -> None:
    """Revoke a key. Every service refuses it within seconds."""
    answer = session.connections.registry.RevokeKey(registry_pb2.RevokeKeyRequest(key_id=key))
    session.output.emit(answer, f"{answer.key.key_id} is revoked.")


def _in_days(days: int) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    return moment
