"""A caller, an operator and an expert outside of the cluster. Runs with the hosts of `doors.py`, and prints what each request came to, by its name."""

import json
import os
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import openai

from tailor.cli.connections import SERVICES
from tailor.client import TailorClient, Tls
from tailor.errors import TailorError
from tests.cluster.flow.doors import DOMAIN, INGRESS_DOMAIN

CALL_SECONDS = 120.0
PAPER = "A paper about wells, in plain words.\n"


def main() -> None:
    """Prints one JSON object: `answered` or the reason of an error, by request."""
    model, question = os.environ["MODEL"], os.environ["QUESTION"]
    ca = Path(os.environ["TAILOR_TLS_CA_FILE"])
    caller, operator = os.environ["CALLER_KEY"], os.environ["OPERATOR_KEY"]
    unknown = caller[:-1] + ("b" if caller.endswith("a") else "a")
    with tempfile.TemporaryDirectory() as directory:
        paper = Path(directory) / "paper.md"
        paper.write_text(PAPER, encoding="utf-8")
        visits: dict[str, Callable[[], str]] = {
            "gateway: unknown key": lambda: ask(f"api.{DOMAIN}", unknown, ca, model, question)
        }
        for door, domain in (("gateway", DOMAIN), ("ingress", INGRESS_DOMAIN)):
            visits |= {
                f"{door}: answer": partial(ask, f"api.{domain}", caller, ca, model, question),
                f"{door}: stream": partial(stream, f"api.{domain}", caller, ca, model, question),
                f"{door}: openai": partial(complete, f"openai.{domain}", caller, ca, model, question),
                f"{door}: console": partial(visit, f"console.{domain}", ca),
            }
        visits |= {
            "operator: registry": lambda: tailor(operator, "specialist", "list"),
            "operator: training": lambda: tailor(operator, "run", "list"),
            "operator: synthetic": lambda: tailor(operator, "dataset", "list"),
            "operator: evaluation": lambda: tailor(operator, "specialist", "leaderboard", model),
            "operator: anonymization": lambda: tailor(operator, "policy", "preview", str(paper)),
            "operator: inference": lambda: tailor(operator, "ask", model, question),
        }
        print(json.dumps({name: call() for name, call in visits.items()}))


def ask(host: str, key: str, ca: Path, model: str, question: str) -> str:
    """Ask for a whole answer by gRPC."""
    try:
        with TailorClient(f"{host}:443", key, Tls(ca.read_bytes())) as client:
            answer = client.generate(model, question, max_tokens=16, timeout_seconds=CALL_SECONDS)
    except TailorError as error:
        return str(error.reason)
    return "answered" if answer.provenance.adapter_digest else "answered by the base"


def stream(host: str, key: str, ca: Path, model: str, question: str) -> str:
    """Ask for an answer in pieces by gRPC."""
    try:
        with TailorClient(f"{host}:443", key, Tls(ca.read_bytes())) as client:
            pieces = list(client.stream(model, question, max_tokens=16, timeout_seconds=CALL_SECONDS))
    except TailorError as error:
        return str(error.reason)
    return "answered" if len(pieces) > 1 else f"{len(pieces)} pieces"


def complete(host: str, key: str, ca: Path, model: str, question: str) -> str:
    """Ask by OpenAI's client."""
    http = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=str(ca)))
    with openai.OpenAI(base_url=f"https://{host}/v1", api_key=key, http_client=http) as client:
        try:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": question}], max_tokens=16, timeout=CALL_SECONDS
            )
        except openai.OpenAIError as error:
            return f"{type(error).__name__}: {error}"
    return "answered" if answer.choices[0].message.content else "empty"


def visit(host: str, ca: Path) -> str:
    """Open the console's page."""
    with httpx.Client(verify=ssl.create_default_context(cafile=str(ca)), follow_redirects=True) as http:
        response = http.get(f"https://{host}/")
    return (
        "answered" if response.status_code == httpx.codes.OK and "<html" in response.text else str(response.status_code)
    )


def tailor(key: str, *arguments: str) -> str:
    """Run a command of the command line, with the addresses that the component `gateway-operators` names."""
    addresses = {f"TAILOR_{service.upper()}_ADDRESS": f"api.{DOMAIN}:443" for service in SERVICES}
    done = subprocess.run(
        [sys.executable, "-m", "tailor.cli.main", *arguments],
        env={**os.environ, **addresses, "TAILOR_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    return "answered" if done.returncode == 0 else f"exit status {done.returncode}: {done.stderr[-300:]}"


if __name__ == "__main__":
    main()
