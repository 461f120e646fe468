"""A checkpoint is a directory that stands alone: config.json, model.safetensors, the tokenizer's files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from vlcli import __version__
from vlcli.errors import InputError, UsageError
from vlcli.models.captioner import Captioner
from vlcli.models.classifier import Classifier, for_evaluation
from vlcli.models.config import (
    CaptionerConfig,
    ClassifierConfig,
    DualEncoderConfig,
    Settings,
    TextEncoderConfig,
)
from vlcli.models.decoder import Decoder
from vlcli.models.diffusion_config import DecoderConfig, PriorConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.layout import layout_stamp, piece_problem
from vlcli.models.prior import Prior
from vlcli.models.quickcheck import CONFIG, DUAL, WEIGHTS, find_checkpoint, is_foreign
from vlcli.models.storage import Uninitialised, fill, layout_of
from vlcli.models.text_encoder import TextEncoder
from vlcli.text.model_tokenizers import saved_tokenizer

if TYPE_CHECKING:
    from vlcli.models.key_values import KeyValues

Model = TypeVar("Model", DualEncoder, TextEncoder, Captioner)
Part = TypeVar("Part", Classifier, Prior, Decoder)  # what reads no texts of its own
S = TypeVar("S", bound=Settings)


def save_checkpoint(
    model: DualEncoder | TextEncoder | Classifier | Captioner | Prior | Decoder | KeyValues,
    path: Path,
    *,
    recipe: dict[str, Any],
    lineage: dict[str, Any],
) -> None:
    """Write `model` into the directory `path` (made; the caller renames it into place)."""
    path.mkdir(parents=True, exist_ok=True)
    architecture = model.config.model_dump(mode="json")
    tokenizer = getattr(model, "tokenizer", None)
    config = {
        "kind": model.kind,
        "architecture": architecture,
        "layout": layout_stamp(architecture, layout_of(model.state_dict())),
        **({} if tokenizer is None else {"pieces": tokenizer.vocab_size}),
        "recipe": recipe,
        "versions": {"vlcli": __version__, "torch": torch.__version__},
        "lineage": lineage,
    }
    (path / CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    # in its place only when whole: the model may live in the pages of the very file that it replaces
    temporary = path / f".{WEIGHTS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path / WEIGHTS)
    # safetensors makes a file for its owner alone; the user's umask decides, as for the others
    (path / WEIGHTS).chmod((path / CONFIG).stat().st_mode & 0o777)
    if tokenizer is not None:
        tokenizer.save(path)


def read_config(path: Path, *, kinds: Sequence[str] = DUAL) -> dict[str, Any]:
    """config.json of a checkpoint directory, of one of the wanted kinds. An R2D2 has the towers of a dual encoder."""
    file = path / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        found = config["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a checkpoint's configuration: {error}", file=str(file)) from error
    if found not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise UsageError(f"{path} is a checkpoint of kind {found!r}; this command wants {wanted}")
    return config


def load(path: str | Path, device: str = "cpu") -> DualEncoder:
    """A model ready for inference from a run, a checkpoint directory, or a foreign checkpoint that an adapter knows.

    It has `preprocess`, `tokenize`, `encode_image`, `encode_text` and `similarity`, and is in evaluation mode. On the
    CPU its tensors are the mapped file's. Raises UsageError where there is no checkpoint, InputError where it is
    damaged.
    """
    place = find_checkpoint(path)
    if is_foreign(place):
        return _load_foreign(place).to(resolve_device(device)).eval()
    return _of_directory(place, DUAL, DualEncoder, DualEncoderConfig, device)


def load_text_encoder(path: str | Path, device: str = "cpu") -> TextEncoder:
    """A student ready for inference from a run of `distill` or a checkpoint of kind "text".

    Raises UsageError where there is none, InputError where it is damaged.
    """
    return _of_directory(find_checkpoint(path), (TextEncoder.kind,), TextEncoder, TextEncoderConfig, device)


def load_captioner(path: str | Path, device: str = "cpu") -> Captioner:
    """A captioner ready for inference from a run of `finetune --task caption` or a checkpoint of that kind.

    Raises UsageError where there is none, InputError where it is damaged.
    """
    return _of_directory(find_checkpoint(path), (Captioner.kind,), Captioner, CaptionerConfig, device)


def load_classifier(path: str | Path, device: str = "cpu", *, as_trained: bool = False) -> Classifier:
    """A classifier ready for inference from what `finetune --task linear-probe` or `classify` wrote, or, `as_trained`,
    at the resolution that it goes on learning at.

    Raises UsageError where there is none, InputError where it is damaged.
    """
    model = _without_tokenizer(path, Classifier, ClassifierConfig, device)
    if as_trained:
        return model
    seen = for_evaluation(model)
    seen.checkpoint_hash = model.checkpoint_hash
    return seen


def load_prior(path: str | Path, device: str = "cpu") -> Prior:
    """A prior ready for inference from a run of `finetune --task t2i --stage prior` or a checkpoint of kind "prior".

    Raises UsageError where there is none or diffusers is missing, InputError where it is damaged.
    """
    return _without_tokenizer(path, Prior, PriorConfig, device)


def load_decoder(path: str | Path, device: str = "cpu") -> Decoder:
    """A decoder ready for inference from a run of `finetune --task t2i --stage decoder` or a checkpoint of kind
    "decoder". Raises as `load_prior`."""
    return _without_tokenizer(path, Decoder, DecoderConfig, device)


def _without_tokenizer(path: str | Path, build: type[Part], schema: type[Settings], device: str) -> Part:
    place = find_checkpoint(path)
    architecture: Any = _architecture(schema, read_config(place, kinds=(build.kind,)), place)
    with Uninitialised():
        model = build(architecture)
    fill(model, place / WEIGHTS)
    model.checkpoint_hash = checkpoint_hash(place)
    return model.to(resolve_device(device)).eval()


def _architecture(schema: type[S], config: dict[str, Any], place: Path) -> S:
    try:
        return schema.model_validate(config["architecture"])
    except (ValidationError, KeyError) as error:
        raise InputError(f"architecture: {first_problem(error)}", file=str(place / CONFIG)) from error


def _of_directory(
    place: Path, kinds: Sequence[str], build: type[Model], schema: type[Settings], device: str
) -> Model:
    """The model of a checkpoint directory of ours, in evaluation mode."""
    config = read_config(place, kinds=kinds)
    architecture: Any = _architecture(schema, config, place)
    tokenizer = saved_tokenizer(place, padding_id=architecture.text.padding_id)
    if problem := piece_problem(tokenizer.vocab_size, architecture.text.vocabulary, config.get("pieces")):
        raise InputError(problem, file=str(place))
    with Uninitialised():
        model = build(architecture, tokenizer)
    fill(model, place / WEIGHTS)
    model.checkpoint_hash = checkpoint_hash(place)
    return model.to(resolve_device(device)).eval()


def _load_foreign(place: Path) -> DualEncoder:
    from vlcli.models.convert import (  # adapters, of which no checkpoint of ours asks
        model_of,
        open_checkpoint,
    )

    return model_of(open_checkpoint(place))


def checkpoint_hash(place: Path) -> str:
    """First 16 hex of sha256 over the architecture and the weights file: what a number was measured with."""
    digest = hashlib.sha256()
    architecture = json.loads((place / CONFIG).read_text(encoding="utf-8"))["architecture"]
    digest.update(json.dumps(architecture, sort_keys=True).encode())
    with open(place / WEIGHTS, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def resolve_device(name: str) -> torch.device:
    """auto, cpu or cuda[:N] → a device that exists here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is none of auto, cpu, cuda[:N]") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device here")
    return device


def first_problem(error: Exception) -> str:
    """The first complaint of a pydantic error as one phrase: `text.width: Input should be …`."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
    return str(error)
