"""Where documents come from, and who admitted it, in PostgreSQL."""

from sqlalchemy import Engine, and_, distinct, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from services.synthetic.adapters import tables
from services.synthetic.adapters.conditions import had_dataset, origin_kind, origin_name, selected
from services.synthetic.domain import Origin, OriginKind, Specialist
from tailor.api.synthetic.v1.synthetic_pb2 import ListOriginsRequest
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction


class SqlOrigins:
    """Where a specialist's documents come from, and who admitted it. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def admit_first(self, specialist: Specialist) -> None:
        """Admit all sources that a specialist selects now, if it has no dataset of documents yet. Examples and golden documents wait."""
        documents = tables.documents.c
        is_source = origin_kind() == OriginKind.SOURCE.value
        found = (
            select(documents.source, func.min(documents.position).label("first"))
            .where(selected(specialist.selection), is_source, ~had_dataset(specialist.name))
            .group_by(documents.source)
            .subquery()
        )
        names = ["specialist", "kind", "name", "position", "first_position"]
        key = (literal(specialist.name), literal(OriginKind.SOURCE.value), found.c.source)
        rows = select(*key, tables.positions.next_value(), found.c.first)
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.origins).from_select(names, rows).on_conflict_do_nothing())

    def list_page(self, request: ListOriginsRequest, specialist: Specialist) -> ListPage[Origin]:
        """A page of the origins of all selected documents, those that nobody admitted first. Admits the first sources before."""
        self.admit_first(specialist)
        documents, origins = tables.documents.c, tables.origins.c
        found = (
            select(
                origin_kind().label("kind"),
                origin_name().label("name"),
                func.count().label("documents"),
                func.array_remove(func.array_agg(distinct(documents.publisher)), "").label("publishers"),
            )
            .where(selected(specialist.selection))
            .group_by("kind", "name")
            .subquery()
        )
        same = and_(origins.specialist == specialist.name, origins.kind == found.c.kind, origins.name == found.c.name)
        query = select(found, origins.admitted_at, func.coalesce(origins.admitted_by, "").label("admitted_by"))
        query = query.select_from(found.outerjoin(tables.origins, same))
        columns = {**found.c, "admit_time": origins.admitted_at}
        key = func.concat(origins.admitted_at.is_not(None), found.c.kind, " ", found.c.name)
        rows = Rows(self._engine, tables.origins, Origin)
        return Listing(rows, request, key, columns=columns).page(query, size=(1000, 1000))

    def admit(self, specialist: Specialist, kind: OriginKind, name: str, admitted_by: str) -> bool:
        """Let documents of an origin give rows, and count as new. Idempotent. False if no selected document comes from it."""
        documents, builds = tables.documents.c, tables.builds.c
        is_of_origin = (origin_kind() == kind.value, origin_name() == name)
        first = select(func.min(documents.position)).where(selected(specialist.selection), *is_of_origin)
        row = {"specialist": specialist.name, "kind": kind.value, "name": name, "admitted_by": admitted_by}
        with transaction(self._engine) as connection:
            position = connection.scalar(first)
            if position is None:
                return False
            values = {**row, "position": tables.positions.next_value(), "first_position": position}
            admitted = insert(tables.origins).values(values).on_conflict_do_nothing()
            if connection.execute(admitted.returning(tables.origins.c.name)).one_or_none():
                seen = position - 1
                connection.execute(
                    update(tables.builds)
                    .where(builds.specialist == specialist.name)
                    .values(
                        built_position=func.least(builds.built_position, seen),
                        tried_position=func.least(builds.tried_position, seen),
                    )
                )
        return True
