"""The methods of all services, and what a key's list of methods means."""

import importlib
import pkgutil
from collections.abc import Sequence

from google.protobuf.descriptor import MethodDescriptor

import tailor.api
from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, Reason


def full_name(method: MethodDescriptor) -> str:
    """Its name on the wire, such as `tailor.api.inference.v1.InferenceService/Generate`."""
    return f"{method.containing_service.full_name}/{method.name}"


def all_methods() -> list[MethodDescriptor]:
    """Every method of every service."""
    modules = [
        info.name for info in pkgutil.walk_packages(tailor.api.__path__, "tailor.api.") if info.name.endswith("_pb2")
    ]
    files = [importlib.import_module(name).DESCRIPTOR for name in modules]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def named_methods(names: Sequence[str], role: int) -> tuple[str, ...]:
    """Full names of the methods that full or short names mean to a role; InvalidArgument where one means none that it may call."""
    found: set[str] = set()
    for name in names:
        meant = [one for one in all_methods() if name.removeprefix("/") in {one.name, full_name(one)}]
        admitted = {full_name(one) for one in meant if _admits(one, role)}
        if not admitted:
            what = "The role may not call it." if meant else "There is no such method."
            raise InvalidArgument(
                Reason.INVALID_KEY, f"{name}: {what}", field_violations={"methods": f"{name}: {what}"}
            )
        found |= admitted
    return tuple(sorted(found))


def _admits(method: MethodDescriptor, role: int) -> bool:
    access = method.GetOptions().Extensions[common_pb2.access]
    return access.any_authenticated or any(admitted == role for admitted in access.roles)
