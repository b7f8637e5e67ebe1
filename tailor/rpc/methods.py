"""The methods of all services, by full and short name."""

import importlib
import pkgutil
from collections.abc import Sequence

from google.protobuf.descriptor import MethodDescriptor

import tailor.api
from tailor.api.common.v1 import common_pb2
from tailor.errors import InvalidArgument, Reason


def full_name(method: MethodDescriptor) -> str:
    """The name on the wire, such as `tailor.api.inference.v1.InferenceService/Generate`."""
    return f"{method.containing_service.full_name}/{method.name}"


def all_methods() -> list[MethodDescriptor]:
    """List every method of every service."""
    modules = [
        info.name for info in pkgutil.walk_packages(tailor.api.__path__, "tailor.api.") if info.name.endswith("_pb2")
    ]
    files = [importlib.import_module(name).DESCRIPTOR for name in modules]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def named_methods(names: Sequence[str], role: int) -> tuple[str, ...]:
    """Expand full or short names to the full names of the methods that a role may call.

    Raises InvalidArgument (INVALID_KEY) for a name that matches no method of the role.
    """
    expanded: set[str] = set()
    for name in names:
        matches = [method for method in all_methods() if name.removeprefix("/") in {method.name, full_name(method)}]
        admitted = {full_name(method) for method in matches if _admits(method, role)}
        if not admitted:
            problem = f"{name}: {'The role may not call this method.' if matches else 'There is no such method.'}"
            raise InvalidArgument(Reason.INVALID_KEY, problem, field_violations={"methods": problem})
        expanded |= admitted
    return tuple(sorted(expanded))


def _admits(method: MethodDescriptor, role: int) -> bool:
    access = method.GetOptions().Extensions[common_pb2.access]
    return access.any_authenticated or any(admitted == role for admitted in access.roles)
