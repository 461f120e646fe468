"""Is a checkpoint whole? Its config parses, its safetensors header describes exactly the bytes that follow, these are
the tensors of its architecture, the tokenizer is that of its embedding table, no file that SHA256SUMS lists is missing,
and, on asking, every byte is what it was and every weight a number.
"""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import Any

import orjson

from vlcli.errors import InputError, UsageError
from vlcli.models.checksums import SUMS, read_checksums, sha256_of
from vlcli.models.layout import Layout, layout_stamp, piece_problem
from vlcli.shards.findings import Verdict

CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocab.txt"
DUAL = ("dual", "r2d2")  # kinds that have the architecture of a dual encoder
READING = (*DUAL, "text", "captioner")  # kinds that read texts, and have a tokenizer
WITHOUT_TEXTS = ("classifier", "prior", "decoder", "diffusion-kv")
KNOWN = (*READING, *WITHOUT_TEXTS)  # kinds whose tensors follow from the architecture
TOKENIZERS = (VOCABULARY, "tokenizer.json")  # word pieces of BERT's rules, and all else
FOREIGN_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")
FOREIGN_MARKS = (
    "model_type",
    "architectures",
    "architecture",
    "text_config",
)  # of transformers' and timm's config.json
TABLES = ("text.token_embedding.weight", "word_embeddings.weight", "embed_tokens.weight")  # (pieces, width)
_MAX_HEADER = 100 << 20  # the bound of the safetensors library
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
}


def is_checkpoint(path: Path) -> bool:
    return (path / WEIGHTS).exists() or ((path / CONFIG).exists() and not any(path.glob("*.tar")))


def is_run(path: Path) -> bool:
    return (path / "checkpoints").is_dir()


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint behind `path`: itself, or a run's `best`, else its `last`. It may be a foreign one, which is a
    directory with weights in it or a file of weights."""
    path = Path(path)
    for place in (path, path / "best", path / "last"):
        if (place / CONFIG).is_file():
            return place
    if not path.exists():
        raise UsageError(f"{path}: no such checkpoint or run")
    if path.is_file() or any(file.suffix in FOREIGN_WEIGHTS for file in path.iterdir()):
        return path
    raise UsageError(f"{path}: neither a checkpoint ({CONFIG}) nor a run (best, last)")


def kind_of(path: str | Path) -> str:
    """The kind of the checkpoint behind `path`: dual, text, image, …; a foreign one counts as dual."""
    place = find_checkpoint(path)
    if is_foreign(place):
        return "dual"
    try:
        return str(orjson.loads((place / CONFIG).read_bytes())["kind"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not a checkpoint's configuration: {error}", file=str(place / CONFIG)) from error


def is_foreign(place: Path) -> bool:
    """Whether what `find_checkpoint` found is another library's: every configuration of ours has a kind."""
    if place.is_file() or not (place / CONFIG).is_file():
        return True
    try:
        found = orjson.loads((place / CONFIG).read_bytes())
    except orjson.JSONDecodeError:
        return False  # ours or not, the reader of ours will say what is wrong
    return isinstance(found, dict) and "kind" not in found and any(mark in found for mark in FOREIGN_MARKS)


def check_checkpoint(path: Path, *, deep: bool = False) -> Verdict:
    """A directory of config.json, model.safetensors and, where texts are read, vocab.txt.

    The model is built, and torch imported, only where config.json does not vouch for the tensors. `deep` compares
    every file with its recorded sum, always builds the model, and looks for weights that are no finite numbers.
    """
    verdict = Verdict(str(path), "checkpoint")
    _check_into(path, verdict, deep)
    return verdict


def read_layout(file: Path) -> Layout:
    """The tensors of a safetensors file, by its header. InputError where it is damaged."""
    verdict = Verdict(str(file), "checkpoint")
    layout = _check_weights(file, verdict)
    if layout is None:
        raise InputError(verdict.findings[0].message, file=str(file))
    return layout


def check_run(path: Path, *, deep: bool = False) -> Verdict:
    """All checkpoints of a run directory, and the links `last` and `best`."""
    verdict = Verdict(str(path), "run")
    for step in sorted((path / "checkpoints").iterdir()):
        if step.is_dir() and not step.name.startswith("."):
            _check_into(step, verdict, deep)
    for name in ("last", "best"):
        link = path / name
        if link.is_symlink() and not link.exists():
            verdict.add("missing", link, f"it leads to {os.readlink(link)}, which is not there")
    return verdict


def _check_into(path: Path, verdict: Verdict, deep: bool) -> None:
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            verdict.add("missing", path, f"no {name}")
    config, layout = None, None
    try:
        if (path / CONFIG).is_file():
            config = _check_config(path / CONFIG, verdict)
        if (path / WEIGHTS).is_file():
            layout = _check_weights(path / WEIGHTS, verdict)
        if config is not None and layout is not None:
            _check_fit(path, config, layout, verdict, deep)
        _check_sums(path, verdict, deep)
    except OSError as error:
        verdict.add("unreadable", error.filename or path, error.strerror or str(error))


def _check_sums(path: Path, verdict: Verdict, deep: bool) -> None:
    listed = set()
    try:
        for file, digest in read_checksums(path):
            listed.add(file.name)
            if not file.is_file():
                if file.name not in (CONFIG, WEIGHTS, VOCABULARY):  # said already
                    verdict.add("missing", path, f"no {file.name}, which {SUMS} lists")
            elif deep and sha256_of(file) != digest:
                verdict.add("checksum", file, f"its bytes are not those that {SUMS} was made of")
    except ValueError as error:
        verdict.add("checksum", path / SUMS, str(error))
        return
    for name in (CONFIG, WEIGHTS):  # an empty list would vouch for anything
        if (path / SUMS).is_file() and (path / name).is_file() and name not in listed:
            verdict.add("checksum", path / SUMS, f"it does not list {name}")


def _check_config(path: Path, verdict: Verdict) -> dict[str, Any] | None:
    try:
        config = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        verdict.add("config", path, f"not JSON ({error})")
        return None
    if not isinstance(config, dict):
        verdict.add("config", path, "not a JSON object")
        return None
    if config.get("kind") in READING and not any((path.parent / name).is_file() for name in TOKENIZERS):
        verdict.add("missing", path.parent, f"no {VOCABULARY}")
    return config


def _check_fit(path: Path, config: dict[str, Any], layout: Layout, verdict: Verdict, deep: bool) -> None:
    """Tensors against the architecture, and pieces against the table that they are looked up in."""
    architecture = config.get("architecture")
    if config.get("kind") in KNOWN and (
        deep
        or not isinstance(architecture, dict)
        or config.get("layout") != layout_stamp(architecture, layout)
    ):
        from vlcli.models.deepcheck import check_architecture

        check_architecture(path, config["kind"], architecture, layout, verdict)
    table = next((shape for name, (_, shape) in layout.items() if name.endswith(TABLES)), ())
    if (path / VOCABULARY).is_file() and table:
        pieces = (path / VOCABULARY).read_bytes().removesuffix(b"\n").count(b"\n") + 1
        if problem := piece_problem(pieces, table[0], config.get("pieces")):
            verdict.add("tokenizer", path / VOCABULARY, problem)
    if deep:
        from vlcli.models.deepcheck import check_numbers, check_tokenizer

        if config.get("kind") not in WITHOUT_TEXTS:
            check_tokenizer(path, config, table, verdict)
        check_numbers(path / WEIGHTS, layout, verdict)


def _check_weights(path: Path, verdict: Verdict) -> Layout | None:
    """The tensors that the header describes, where they lie as it says."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(_MAX_HEADER, size - 8):
            verdict.add("weights", path, f"cut inside its header: {size} bytes", 0)
            return None
        raw = file.read(length)
    try:
        header = orjson.loads(raw)
        tensors = {name: value for name, value in header.items() if name != "__metadata__"}
        spans = sorted((*_span(value), name) for name, value in tensors.items())
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        verdict.add("weights", path, f"its header does not parse ({error})", 8)
        return None
    position = 0
    for start, end, name in spans:
        bits = _BITS.get(tensors[name]["dtype"])
        wanted = None if bits is None else math.prod(tensors[name]["shape"]) * bits // 8
        if start != position or (wanted is not None and end - start != wanted):
            verdict.add(
                "weights", path, f"tensor {name} does not lie where its header says", 8 + length + start
            )
            return None
        position = end
    if 8 + length + position != size:
        cut = next((name for _, end, name in spans if 8 + length + end > size), None)
        where = f", cut inside tensor {cut}" if cut else ", more than its header describes"
        verdict.add("weights", path, f"{size} bytes of {8 + length + position}{where}", size)
        return None
    return {name: (value["dtype"], tuple(value["shape"])) for name, value in tensors.items()}


def _span(value: dict[str, Any]) -> tuple[int, int]:
    start, end = value["data_offsets"]
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end):
        raise ValueError(f"data_offsets {value['data_offsets']}")
    if not all(isinstance(side, int) and side >= 0 for side in value["shape"]):
        raise ValueError(f"shape {value['shape']}")
    return start, end
