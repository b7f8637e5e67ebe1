"""What the components of k8s/ expect of a cluster: other projects' definitions, from their Go modules, and the class of a runtime."""

from collections.abc import Sequence

import yaml

from tests.cluster.control_plane import ControlPlane
from tests.cluster.programs import Programs

# What needs definitions that a plain cluster does not have.
DEFINITIONS = {
    "gateway": "sigs.k8s.io/gateway-api@v1.4.0:config/crd/standard",
    "autoscaling-lag": "github.com/kedacore/keda/v2@v2.18.0:config/crd/bases",
}
# Each installation names its own; the component's is that of NVIDIA's operator.
RUNTIME_CLASS = {
    "apiVersion": "node.k8s.io/v1",
    "kind": "RuntimeClass",
    "metadata": {"name": "nvidia"},
    "handler": "nvidia",
}


def define(plane: ControlPlane, programs: Programs, components: Sequence[str]) -> None:
    """Add what the components expect of a cluster: the definitions of other projects, and the class of a runtime."""
    if "runtime-class" in components:
        plane.apply([RUNTIME_CLASS])
    for name in set(components) & set(DEFINITIONS):
        package, _, place = DEFINITIONS[name].partition(":")
        files = sorted((programs.source(package) / place).glob("*.yaml"))
        definitions = [item for file in files if (item := yaml.safe_load(file.read_text(encoding="utf-8"))).get("spec")]
        plane.apply([item for item in definitions if item["kind"] == "CustomResourceDefinition"])
