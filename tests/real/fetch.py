"""Apache Kafka and MinIO for the tests: fetched once, by the ordinary clients of Maven and Go, into a folder that is kept between runs.

They are never committed and never shipped. `TAILOR_REAL_FOLDER` names the folder, by default `~/.cache/tailor/real`.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.installed import check_installed

KAFKA = "4.3.1"
LOG4J = "2.25.3"
MINIO = "v0.0.0-20260212201848-7aac2a2c5b7c"
# Its wheel carries librdkafka, of which Debian 12 has one that Kafka 4 does not let sign in: kcat runs with this one.
LIBRDKAFKA = "2.11.1"
MIN_JAVA = 17
FETCH_SECONDS = 1500
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tailor</groupId><artifactId>real-stores</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{KAFKA}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{LOG4J}</version></dependency>
</dependencies></project>
"""
NEEDED = {
    "java": f"Java {MIN_JAVA} or newer: apt-get install openjdk-{MIN_JAVA}-jdk-headless",
    "mvn": "Maven: apt-get install maven",
    "go": "Go 1.24 or newer: apt-get install golang-go, or the archive of the Go project",
}


@dataclass(frozen=True)
class Programs:
    """The fetched servers."""

    kafka_libs: Path
    minio: Path
    # A folder with `librdkafka.so.1`.
    librdkafka: Path

    @property
    def java(self) -> tuple[str, ...]:
        """The command that runs a class of Kafka."""
        return ("java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{self.kafka_libs}/*")


def folder() -> Path:
    """Where the servers are kept."""
    return Path(os.environ.get("TAILOR_REAL_FOLDER") or Path.home() / ".cache" / "tailor" / "real")


def find(root: Path) -> Programs | None:
    """The fetched servers, or None if they are not all there."""
    programs = Programs(root / f"kafka-{KAFKA}", root / f"minio-{MINIO}" / "minio", root / f"librdkafka-{LIBRDKAFKA}")
    return (
        programs if all(path.exists() for path in (programs.kafka_libs, programs.minio, programs.librdkafka)) else None
    )


def fetch(root: Path) -> Programs:
    """Fetch what is not there yet, minutes at the first time. Raises Missing, or CalledProcessError if a client fails."""
    needed = {"java": NEEDED["java"]} if find(root) else NEEDED
    check_installed(needed, "Apache Kafka and MinIO")
    root.mkdir(parents=True, exist_ok=True)
    if not (root / f"kafka-{KAFKA}").is_dir():
        _fetch_kafka(root)
    if not (root / f"minio-{MINIO}" / "minio").is_file():
        _fetch_minio(root)
    if not (root / f"librdkafka-{LIBRDKAFKA}").is_dir():
        _fetch_librdkafka(root)
    programs = find(root)
    assert programs is not None
    return programs


def _fetch_kafka(root: Path) -> None:
    sys.stderr.write(f"Fetching Apache Kafka {KAFKA} by Maven ...\n")
    work = root / "kafka.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "pom.xml").write_text(POM, encoding="utf-8")
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"]
    subprocess.run(command, cwd=work, check=True, timeout=FETCH_SECONDS)
    (work / "libs").rename(root / f"kafka-{KAFKA}")
    shutil.rmtree(work)


def _fetch_minio(root: Path) -> None:
    sys.stderr.write(f"Fetching MinIO {MINIO} by Go ...\n")
    work = root / "minio.part"
    shutil.rmtree(work, ignore_errors=True)
    environment = os.environ | {"GOBIN": str(work), "GOFLAGS": "-trimpath"}
    subprocess.run(
        ["go", "install", f"github.com/minio/minio@{MINIO}"], env=environment, check=True, timeout=FETCH_SECONDS
    )
    work.rename(root / f"minio-{MINIO}")


def _fetch_librdkafka(root: Path) -> None:
    sys.stderr.write(f"Fetching librdkafka {LIBRDKAFKA} by pip ...\n")
    work = root / "librdkafka.part"
    shutil.rmtree(work, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]
    command += [str(work / "wheel"), f"confluent-kafka=={LIBRDKAFKA}"]
    subprocess.run(command, check=True, timeout=FETCH_SECONDS)
    (library,) = (work / "wheel" / "confluent_kafka.libs").glob("librdkafka-*.so*")
    # It finds the libraries that it needs in the same folder, by its run path.
    library.with_name("librdkafka.so.1").symlink_to(library.name)
    library.parent.rename(root / f"librdkafka-{LIBRDKAFKA}")
    shutil.rmtree(work)
