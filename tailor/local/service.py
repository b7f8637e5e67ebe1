"""A service as a process, and how it says that it is ready."""

import http
import http.client
import json
import os
import sys
import urllib.error
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailor.local.component import Component
from tailor.local.environment import Plan, service_environment

CHECK_SECONDS = 2.0


def service(name: str, module: str, plan: Plan, needs: tuple[str, ...]) -> Component:
    """The service of that name, run as `python -m MODULE`."""
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
        recheck_seconds=3.0,
    )


def _check(addresses: dict[str, str]) -> str | None:
    if "rpc" in addresses:
        return None if _is_serving(addresses["rpc"]) else _waiting_for(addresses["status"])[1]
    ready, detail = _waiting_for(addresses["status"])
    return None if ready else detail


def _is_serving(address: str) -> bool:
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CHECK_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _waiting_for(status_address: str) -> tuple[bool, str]:
    """Whether /readyz says yes, and what it waits for."""
    try:
        status, body = _get(f"{status_address}/readyz")
    except (OSError, http.client.HTTPException):
        return False, ""
    return status == http.HTTPStatus.OK, _detail(body)


def _get(url: str) -> tuple[int, bytes]:
    # A proxy of the shell that started the stack has no business between its parts.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=CHECK_SECONDS) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _detail(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        return ""
    waiting = answer.get("waiting_for") if isinstance(answer, dict) else None
    return ", ".join(map(str, waiting)) if isinstance(waiting, list) else str(waiting or "")
