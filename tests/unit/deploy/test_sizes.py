"""The sizes of a class of bases are those that `tailor run plan` computes, and fit each other."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from deploy.sizes import ServingLoad, ServingSize, Training, load_recipe, main, plan_serving, plan_training
from services.inference.settings import Settings as InferenceSettings
from services.training.planning.base_shape import read_shape
from services.training.planning.forecast import Shape
from tests.unit.deploy.manifests import K8S, build, container_of, environment_of, named, pod_of, render

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
SMOLLM2_135M = {
    **LLAMA,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
LLAMA_31_8B = {
    **LLAMA,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
UNITS = {"": 1, "Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class SizeClass:
    """A class, the base that stands for it, the longest row that it trains, and the GPU that it serves on."""

    component: str
    config: Mapping[str, Any]
    parameters: float
    row_tokens: int
    serving_gpu_bytes: float


CLASSES = {
    "135m": SizeClass("size-135m", SMOLLM2_135M, 0.135e9, 2048, 15 * 2**30),
    "8b": SizeClass("size-8b", LLAMA_31_8B, 8.03e9, 4096, 48e9),
}


@cache
def shape_of(name: str) -> Shape:
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CLASSES[name].config), encoding="utf-8")
        return read_shape(Path(folder))


def serving_of(name: str) -> ServingSize:
    environment = environment_of(documents(name), "inference")
    slots = InferenceSettings.model_fields["max_loras"].default
    load = ServingLoad(
        context=int(environment["TAILOR_MAX_MODEL_LEN"]), places=int(environment["TAILOR_MAX_CONCURRENT"]), slots=slots
    )
    return plan_serving(shape_of(name), load_recipe("lora"), load)


def training_of(name: str) -> Training:
    return plan_training(shape_of(name), load_recipe("lora"), CLASSES[name].row_tokens)


def documents(name: str) -> tuple[dict[str, Any], ...]:
    """The prod overlay, with the class on top."""
    return render(CLASSES[name].component)


def size(quantity: str) -> int:
    """A Kubernetes quantity in bytes."""
    match = re.fullmatch(r"(\d+)(Mi|Gi|)", quantity)
    assert match is not None, quantity
    return int(match[1]) * UNITS[match[2]]


def volume(name: str, deployment: str, volume_name: str) -> int:
    (found,) = (each for each in pod_of(documents(name), deployment)["volumes"] if each["name"] == volume_name)
    return size(found["emptyDir"]["sizeLimit"])


def is_tight(given: float, needed: float) -> bool:
    """Enough, and at most three times what is needed, or 8 GB more."""
    return needed <= given <= max(3 * needed, needed + 8e9)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_sized_for_the_base_that_stands_for_it(name: str) -> None:
    assert shape_of(name).parameters == pytest.approx(CLASSES[name].parameters, rel=0.01)
    settings = next(each for key, each in named(documents(name), "ConfigMap").items() if "settings" in key)["data"]
    assert settings["TAILOR_BASE"] == settings["TAILOR_DEFAULT_BASE"]
    assert settings["TAILOR_DEFAULT_BASE_SOURCE"]


@pytest.mark.parametrize("name", CLASSES)
def test_inference_has_the_memory_and_the_disk_that_its_base_needs(name: str) -> None:
    needs, resources = serving_of(name), container_of(documents(name), "inference")["resources"]
    assert is_tight(size(resources["requests"]["memory"]), needs.memory_bytes)
    assert size(resources["limits"]["memory"]) >= size(resources["requests"]["memory"]) + volume(
        name, "inference", "shared-memory"
    )
    assert is_tight(volume(name, "inference", "data"), needs.disk_bytes)
    assert needs.gpu_bytes <= CLASSES[name].serving_gpu_bytes


@pytest.mark.parametrize("name", CLASSES)
def test_inference_has_time_to_start_and_to_finish_its_longest_answer(name: str) -> None:
    needs, pod = serving_of(name), pod_of(documents(name), "inference")
    container = container_of(documents(name), "inference")
    probe, grace = container["startupProbe"], environment_of(documents(name), "inference")["TAILOR_STOP_GRACE_SECONDS"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 2 * needs.start_seconds
    assert float(grace) >= needs.stop_seconds
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + float(grace) + 30


@pytest.mark.parametrize("name", CLASSES)
def test_a_worker_has_the_memory_and_the_disk_that_its_base_needs(name: str) -> None:
    needs, environment = training_of(name), environment_of(documents(name), "training")
    assert needs.gpu_bytes <= float(environment["TAILOR_DEVICE_MEMORY_GIB"]) * 2**30
    assert is_tight(size(environment["TAILOR_KUBERNETES_MEMORY"]), needs.memory_bytes)
    assert size(environment["TAILOR_KUBERNETES_MEMORY_LIMIT"]) >= size(environment["TAILOR_KUBERNETES_MEMORY"]) + size(
        environment["TAILOR_KUBERNETES_SHARED_MEMORY"]
    )
    scratch = size(environment["TAILOR_KUBERNETES_SCRATCH"])
    assert needs.disk_bytes <= scratch <= max(3 * needs.disk_bytes, 16 * 2**30)


@pytest.mark.parametrize("name", CLASSES)
def test_the_training_service_can_add_the_base(name: str) -> None:
    needs, resources = training_of(name), container_of(documents(name), "training")["resources"]
    assert is_tight(size(resources["limits"]["memory"]), needs.service_memory_bytes)
    assert is_tight(volume(name, "training", "data"), needs.service_disk_bytes)


@pytest.mark.parametrize("name", CLASSES)
def test_workers_and_inference_together_fit_the_quota(name: str) -> None:
    environment = environment_of(documents(name), "training")
    gpus = int(environment["TAILOR_KUBERNETES_GPUS"]) * int(environment["TAILOR_KUBERNETES_NODES"])
    inference = named(documents(name), "Deployment")["inference"]["spec"]["replicas"]
    quota = named(documents(name), "ResourceQuota")["tailor"]["spec"]["hard"]["requests.nvidia.com/gpu"]
    assert int(environment["TAILOR_MAX_RUNS"]) * gpus + inference <= int(quota)


@pytest.mark.parametrize("name", CLASSES)
def test_every_pod_asks_for_the_disk_of_its_volumes(name: str) -> None:
    for deployment in named(documents(name), "Deployment"):
        disks = [
            size(each["emptyDir"]["sizeLimit"])
            for each in pod_of(documents(name), deployment)["volumes"]
            if "emptyDir" in each and "medium" not in each["emptyDir"]
        ]
        resources = container_of(documents(name), deployment)["resources"]
        asked = (size(resources["requests"]["ephemeral-storage"]), size(resources["limits"]["ephemeral-storage"]))
        assert asked[0] >= sum(disks)
        # Logs count too.
        assert asked[1] > asked[0]


def test_the_prod_overlay_has_the_class_of_the_demos_base() -> None:
    assert environment_of(render(), "inference")["TAILOR_MAX_MODEL_LEN"] == "2048"
    assert environment_of(render(), "training")["TAILOR_KUBERNETES_SCRATCH"] == "16Gi"


def test_sizes_of_another_base_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B), encoding="utf-8")
    main(str(tmp_path))
    printed = capsys.readouterr().out
    assert "8.03 billion parameters; 8192 tokens for 16 answers; rows of 4096 tokens" in printed
    assert re.search(r"^training: gpu 53\.\d GB$", printed, re.MULTILINE)


def test_overlay_in_the_documentation_changes_the_base_of_both_services() -> None:
    page = (K8S.parent / "docs" / "kubernetes" / "sizes.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    documents = build(yaml.safe_load(example))
    settings = next(each for key, each in named(documents, "ConfigMap").items() if "settings" in key)["data"]
    assert settings["TAILOR_BASE"] == settings["TAILOR_DEFAULT_BASE"] == "ours-7b"
    assert settings["TAILOR_DEFAULT_BASE_SOURCE"] == "hub:OWNER/NAME"
