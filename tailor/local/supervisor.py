"""Owns every process of a stack: starts the stores, then the services, restarts processes that end, and stops all in reverse."""

import asyncio
import http.client
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tailor.events.access import PUBLISHER
from tailor.local import processes, secrets
from tailor.local.broker import broker
from tailor.local.component import RECHECK_SECONDS, Component
from tailor.local.database import database
from tailor.local.environment import StackPlan, service_environment
from tailor.local.external import External, ExternalRunner, external_broker, external_database, external_store
from tailor.local.layout import BROKER, DATABASE, STORE, STORES, Layout
from tailor.local.own_stores import load_own_stores
from tailor.local.ports import Ports, reserve
from tailor.local.runner import ComponentRunner
from tailor.local.state import ComponentState, StackSnapshot, load, save
from tailor.local.store import store
from tailor.local.store_access import librdkafka_properties
from tailor.logging import get_logger

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


log = get_logger(__name__)


def components(plan: StackPlan, services: Mapping[str, str], only: tuple[str, ...]) -> list[Component | External]:
    """The components to run, stores first. `services` maps names to modules; an empty `only` means all."""
    own_stores, access = plan.own_stores, plan.stores
    factories: dict[str, Callable[[], Component | External]] = {
        BROKER: lambda: broker(plan.layout, plan.ports),
        STORE: lambda: store(plan.layout, plan.ports, plan.secrets),
        DATABASE: lambda: database(plan.layout, plan.ports, plan.secrets),
    }
    if own_stores.kafka is not None:
        kafka = own_stores.kafka
        factories[BROKER] = lambda: external_broker(access, kafka)
    if own_stores.s3 is not None:
        s3 = own_stores.s3
        factories[STORE] = lambda: external_store(access, s3)
    if own_stores.database is not None:
        server = own_stores.database
        has_administrator = bool(server.admin_password.get_secret_value())
        factories[DATABASE] = lambda: external_database(access, server.address, has_administrator=has_administrator)
    stores = tuple(name for name in STORES if not only or name in only)
    chosen = {name: module for name, module in services.items() if not only or name in only}
    return [
        *(factories[name]() for name in stores),
        *(service(name, module, plan, stores) for name, module in chosen.items()),
    ]


class StackSupervisor:
    """Runs the components of one state directory until SIGTERM or SIGINT."""

    def __init__(self, layout: Layout, ports: Ports, parts: list[Component | External]) -> None:
        self._layout = layout
        self._runners: dict[str, ComponentRunner | ExternalRunner] = {}
        for part in parts:
            self._runners[part.name] = self._runner(part)
        states = {name: runner.state for name, runner in self._runners.items()}
        self._snapshot = StackSnapshot(processes.identify(os.getpid()), ports.base, states)

    def _runner(self, part: Component | External) -> ComponentRunner | ExternalRunner:
        if isinstance(part, External):
            return ExternalRunner(part, self.publish)
        needs = {name: self._runners[name].ready for name in part.needs}
        return ComponentRunner(part, self._layout, needs, self.publish)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop every component. An unexpected error also stops them, and is raised."""
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        save(self._layout.stack_file, self._snapshot)
        tasks = [asyncio.create_task(runner.run()) for runner in self._runners.values()]
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await self._stop()
        save(self._layout.stack_file, self._snapshot.stopped())
        for outcome in outcomes:
            if not isinstance(outcome, asyncio.CancelledError | None):
                raise outcome

    async def _stop(self) -> None:
        services = [runner for name, runner in self._runners.items() if name not in STORES]
        await asyncio.gather(*(runner.stop() for runner in services))
        for runner in reversed([self._runners[name] for name in STORES if name in self._runners]):
            await runner.stop()

    def publish(self, state: ComponentState) -> None:
        """Store the state of a component with those of the others."""
        states = {**self._snapshot.components, state.name: state}
        self._snapshot = replace(self._snapshot, components=states)
        try:
            save(self._layout.stack_file, self._snapshot)
        except OSError as error:
            # A full disk must not stop the stack. The next change is stored with all that came before.
            log.error("state not stored", error=type(error).__name__, errno=error.errno)


def write_kcat_file(plan: StackPlan) -> None:
    """Write what kcat needs for an own Kafka, and remove what an earlier start wrote for another one."""
    if plan.own_stores.kafka is None:
        plan.layout.kcat_file.unlink(missing_ok=True)
    else:
        secrets.write(plan.layout.kcat_file, librdkafka_properties(plan.stores.kafka(PUBLISHER)))


def supervise(
    layout: Layout, services: Mapping[str, str], only: tuple[str, ...], python_path: tuple[Path, ...]
) -> None:
    """Run a stack. Blocks until it is stopped. The caller must hold the stack's lock."""
    previous = load(layout.stack_file)
    reservation = reserve(layout.root, None if previous is None else previous.port_base)
    created = secrets.ensure(layout)
    secrets.write(layout.stores_file, json.dumps(created.store_credentials(), indent=1))
    plan = StackPlan(layout, reservation.ports, created, python_path, load_own_stores(layout))
    write_kcat_file(plan)
    parts = components(plan, services, only)
    asyncio.run(StackSupervisor(layout, reservation.ports, parts).run())
    reservation.close()
