"""Every method of every service says who may call it, and everybody else is refused."""

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor import MethodDescriptor

import tailor.api
from tailor.api.common.v1 import common_pb2
from tailor.errors import PermissionDenied
from tailor.rpc.auth import Caller, check_access
from tailor.storage.buckets import ACCESS

IDENTITIES = [*ACCESS, "stranger"]
ROLES = list(common_pb2.Role.keys())


def _methods() -> list[MethodDescriptor]:
    modules = [
        info.name for info in pkgutil.walk_packages(tailor.api.__path__, "tailor.api.") if info.name.endswith("_pb2")
    ]
    descriptors = [importlib.import_module(name).DESCRIPTOR for name in modules]
    return [method for file in descriptors for service in file.services_by_name.values() for method in service.methods]


METHODS = _methods()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_method_names_who_may_call(method: MethodDescriptor) -> None:
    access = method.GetOptions().Extensions[common_pb2.access]
    assert access.roles or access.services or access.any_authenticated
    assert set(access.services) <= set(IDENTITIES) - {"stranger"}
    assert common_pb2.ROLE_UNSPECIFIED not in access.roles


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_everybody_who_is_not_named_is_refused(method: MethodDescriptor) -> None:
    access = method.GetOptions().Extensions[common_pb2.access]
    if access.any_authenticated:
        pytest.skip("open to every authenticated caller by its contract")
    admitted_roles = {common_pb2.Role.Name(role) for role in access.roles}
    callers = [Caller("service", name) for name in IDENTITIES] + [Caller("key", "someone", role) for role in ROLES]
    for caller in callers:
        named = caller.name in access.services if caller.kind == "service" else caller.role in admitted_roles
        if named:
            check_access(method, caller)
        else:
            with pytest.raises(PermissionDenied):
                check_access(method, caller)


def test_a_key_named_like_a_service_is_no_service() -> None:
    verify_key = next(method for method in METHODS if method.name == "VerifyKey")
    with pytest.raises(PermissionDenied):
        check_access(verify_key, Caller("key", "inference", "ROLE_OPERATOR"))
