"""Workers as subprocesses."""

import json
import os
import signal
import sys
from pathlib import Path

from services.training.domain import RETRIABLE_EXIT, Job
from services.training.launchers.subprocess import SubprocessLauncher, worker_environment
from services.training.settings import Settings
from tailor.local.layout import COMPONENT_MARK, STATE_DIR_MARK
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
# A worker that has not started to train.
STARTING = f"""
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from services.training.worker.__main__ import Interrupt
signal.signal(signal.SIGTERM, Interrupt(Path(os.environ["TAILOR_EXIT_FILE"])).handle)
Path(os.environ["TAILOR_RUN_FILE"] + ".seen").touch()
time.sleep(60)
"""


def launcher_of(folder: Path, script: str) -> SubprocessLauncher:
    """A launcher with workers that run this script."""
    return SubprocessLauncher(folder, {"PATH": "/usr/bin:/bin"}, [sys.executable, "-c", script])


def test_process_is_started_once_and_its_exit_code_is_read(job: Job, tmp_path: Path) -> None:
    script = "import os,sys; open(os.environ['TAILOR_RUN_FILE']+'.seen','a').write('x'); sys.exit(7)"
    launcher = launcher_of(tmp_path, script)
    launcher.start(job)
    launcher.start(job)
    wait_until(lambda: launcher.exit_code(job.run.run_id, 1) == 7)
    assert (tmp_path / f"{job.name}.json.seen").read_text() == "x"
    assert json.loads((tmp_path / f"{job.name}.json").read_text())["epoch"] == 1


def test_restarted_launcher_finds_a_live_worker_and_can_stop_it(job: Job, tmp_path: Path) -> None:
    first = launcher_of(tmp_path, "import time; time.sleep(60)")
    first.start(job)
    second = launcher_of(tmp_path, "")
    second.start(job)
    assert second.exit_code(job.run.run_id, 1) is None
    assert second.exit_code("run_unknown", 1) is None
    second.stop_all()
    assert second.exit_code(job.run.run_id, 1) == 1
    assert first.exit_code(job.run.run_id, 1) == -15


def test_preempted_worker_is_known_even_if_the_service_was_restarted(job: Job, tmp_path: Path) -> None:
    first, second = launcher_of(tmp_path, STARTING), launcher_of(tmp_path, "")
    first.start(job)
    wait_until((tmp_path / f"{job.name}.json.seen").exists)
    os.kill(int((tmp_path / f"{job.name}.pid").read_text().split()[0]), signal.SIGTERM)
    wait_until(lambda: second.exit_code(job.run.run_id, 1) is not None)
    assert second.exit_code(job.run.run_id, 1) == first.exit_code(job.run.run_id, 1) == RETRIABLE_EXIT


def test_worker_survives_a_killed_service_but_ends_with_the_stack() -> None:
    inherited = {COMPONENT_MARK: "training", STATE_DIR_MARK: "/state"}
    environment = worker_environment(Settings(), inherited)
    assert COMPONENT_MARK not in environment
    assert environment[STATE_DIR_MARK] == "/state"


def test_worker_without_keys_assumes_the_services_role(tmp_path: Path) -> None:
    settings = Settings(s3_token_file=tmp_path / "token", s3_role="arn:aws:iam::1:role/training")
    environment = worker_environment(settings, {})
    assert environment["TAILOR_S3_TOKEN_FILE"] == str(tmp_path / "token")
    assert environment["TAILOR_S3_ROLE"] == "arn:aws:iam::1:role/training"
    assert "TAILOR_S3_TOKEN_FILE" not in worker_environment(Settings(), {})


def test_worker_gets_none_of_the_services_secrets() -> None:
    settings = Settings(
        s3_access_key="service", s3_secret_key="own", worker_s3_access_key="worker", worker_s3_secret_key="w"
    )
    inherited = {
        "PATH": "/bin",
        "TAILOR_DATABASE_URL": "postgresql://secret",
        "TAILOR_KAFKA_SASL_PASSWORD": "secret",
        "HF_TOKEN": "secret",
        "TAILOR_COMPUTE_LOCK": "/run/lock",
    }
    environment = worker_environment(settings, inherited)
    assert "secret" not in "".join(environment.values())
    assert environment["TAILOR_S3_ACCESS_KEY"] == "worker"
    assert environment["TAILOR_COMPUTE_LOCK"] == "/run/lock"
