"""Agreements of judge models, and frozen definitions, in PostgreSQL. Thread-safe."""

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from services.evaluation.adapters import tables
from services.evaluation.domain import Agreement, Definition, SpecialistTerms
from services.evaluation.ports import Agreements, DefinitionStore
from tailor.sql import transaction


class SqlAgreements(Agreements):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, key: str) -> Agreement | None:
        table = tables.agreements
        with transaction(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.key == key)).one_or_none()
        return None if row is None else Agreement(row.kappa, row.pairs, row.failures)

    def add(self, key: str, agreement: Agreement) -> None:
        values = {
            "key": key,
            "kappa": agreement.kappa,
            "pairs": agreement.pairs,
            "failures": agreement.failures,
        }
        with transaction(self._engine) as connection:
            connection.execute(insert(tables.agreements).values(values).on_conflict_do_nothing())


class SqlDefinitions(DefinitionStore):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def freeze(self, terms: SpecialistTerms) -> list[Definition]:
        table = tables.definitions
        query = select(table).where(table.c.specialist == terms.name).order_by(table.c.revision)
        values = {"specialist": terms.name, "revision": terms.revision, "digest": terms.definition_digest}
        with transaction(self._engine) as connection:
            known = connection.execute(query).all()
            if not known or known[-1].digest != terms.definition_digest:
                connection.execute(insert(table).values(values).on_conflict_do_nothing())
                known = connection.execute(query).all()
        return [Definition(row.digest, row.revision, row.frozen_at) for row in known]
