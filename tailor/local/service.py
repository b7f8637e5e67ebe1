"""A service as a process, and its readiness checks."""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailor.local.component import RECHECK_SECONDS, Component
from tailor.local.environment import StackPlan, service_environment

CHECK_SECONDS = 2.0


def service(name: str, module: str, plan: StackPlan, needs: tuple[str, ...]) -> Component:
    """The component that runs a service as `python -m MODULE`."""
    ports, scratch = plan.ports, plan.layout.scratch(name)
    addresses = {"rpc": ports.address(f"{name}-rpc"), "status": f"http://{ports.address(f'{name}-status')}"}
    if name in ("inference", "console"):
        addresses["http"] = f"http://{ports.address(f'{name}-http')}"
    if name == "console":
        del addresses["rpc"]
    return Component(
        name=name,
        command=(sys.executable, "-m", module),
        environment=service_environment(name, plan, os.environ),
        directory=scratch,
        check=lambda: _check(addresses),
        addresses=addresses,
        needs=needs,
        prepare=lambda: scratch.mkdir(parents=True, exist_ok=True),
        recheck_seconds=RECHECK_SECONDS,
        # Its calls have 8 s to end (TAILOR_STOP_GRACE_SECONDS), then its threads as long.
        stop_seconds=20.0,
    )


def _check(addresses: dict[str, str]) -> str | None:
    """None if the service is ready, else what it is waiting for ("" if unknown)."""
    readiness = _get_readiness(addresses["status"])
    # A service that answers calls may still wait for the broker.
    if readiness.is_ready and ("rpc" not in addresses or _is_serving(addresses["rpc"])):
        return None
    return readiness.waits_for


def _is_serving(address: str) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Readiness(NamedTuple):
    """What /readyz says; a service that does not answer is not ready, and waits for "" (unknown)."""

    is_ready: bool
    waits_for: str


def _get_readiness(status_address: str) -> Readiness:
    try:
        body = json.loads(_get(f"{status_address}/readyz")[1])
        return Readiness(bool(body["ready"]), str(body["waiting_for"] or ""))
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return Readiness(is_ready=False, waits_for="")


def _get(url: str) -> tuple[int, bytes]:
    # The stack's parts must not talk through a proxy that the shell happens to have set.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=CHECK_SECONDS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
