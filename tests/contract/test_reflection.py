"""A tool without our protos, such as grpcurl, learns the contract from a server that reflects it."""

import importlib
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tailor.rpc.auth import Authenticator, Caller
from tailor.rpc.identity import Trust
from tailor.rpc.methods import all_methods, full_name
from tailor.rpc.server import RpcServer
from tailor.settings import ServiceSettings

FILES = {method.containing_service.full_name: method.containing_service.file.name for method in all_methods()}


def _servicer(service: str) -> tuple[Any, Any]:
    module: Any = importlib.import_module(FILES[service].removesuffix(".proto").replace("/", ".") + "_pb2_grpc")
    name = service.rpartition(".")[2]
    return getattr(module, f"add_{name}Servicer_to_server"), getattr(module, f"{name}Servicer")()


def test_every_method_can_be_called_from_what_reflection_says_without_credentials() -> None:
    server = RpcServer(
        ServiceSettings(rpc_port=0, rpc_reflection=True),
        "any",
        servicers=[_servicer(service) for service in FILES],
        authenticator=Authenticator("any", Trust({}), lambda _: Caller("key", "team", "ROLE_CALLER")),
        max_workers=2,
    )
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(FILES) <= set(database.get_services())
        pool = DescriptorPool(database)
        described = {
            full_name(method)
            for service in FILES
            for method in pool.FindServiceByName(service).methods
            if method.input_type.full_name and method.output_type.full_name
        }
    server.stop(0)
    assert described == set(map(full_name, all_methods()))
