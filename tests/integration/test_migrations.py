"""Migrations of all services: their numbers, and databases of other releases."""

from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from tailor.errors import FailedPrecondition
from tailor.sql import connect, migrate

pytestmark = pytest.mark.integration

SERVICES = Path(__file__).parents[2] / "services"
MIGRATIONS = sorted(SERVICES.glob("*/adapters/migrations"))
# The newest revision of a release before the baseline (decision 75). Later ones must differ, or an old database passes.
LAST_BEFORE_BASELINE = "0421"


@pytest.mark.parametrize("migrations", MIGRATIONS, ids=lambda path: path.parents[1].name)
def test_a_database_of_another_release_is_refused_and_left_as_it_is(migrations: Path, database_url: str) -> None:
    engine = connect(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version AS SELECT '0411' AS version_num"))
    with pytest.raises(FailedPrecondition, match="is at revision 0411, which this release does not know: install"):
        migrate(engine, migrations)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_no_migration_has_the_number_of_one_before_the_baseline() -> None:
    names = [path.name for path in SERVICES.glob("*/adapters/migrations/versions/*.py")]
    assert [name for name in names if name != "0300_baseline.py" and name[:4] <= LAST_BEFORE_BASELINE] == []
