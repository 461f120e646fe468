"""MarianMT and mBART checkpoints as transformers saves them, translating from a local directory.

Nothing is fetched and nothing is unpickled: the weights are safetensors. Padding is masked, so that the company in
which a text is translated changes nothing but the last bits of sums.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from vlcli.errors import InputError, UsageError

KINDS = ("marian", "mbart")  # model_type of config.json
_REMEDY = "pip install 'vlcli[translate]'"


@dataclass(frozen=True)
class Decoding:
    """How a model computes. `beams` None: as the checkpoint says."""

    device: Any = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    beams: int | None = None
    batch_size: int = 32

    def said(self) -> str:
        """What of it can change a translation."""
        return f"{self.precision}, beams {self.beams}"


def check_directory(path: Path) -> str:
    """The kind of a checkpoint. Raises UsageError for what cannot be used, InputError for damage."""
    config = path / "config.json"
    if not config.is_file():
        raise UsageError(f"--translator {path}: no such directory with a config.json")
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError):
        raise InputError("not the configuration of a model", file=str(config)) from None
    if kind not in KINDS:
        raise UsageError(f"--translator {path}: it holds a model of type {kind}, not {' or '.join(KINDS)}")
    if not any(path.glob("*.safetensors")):
        raise UsageError(
            f"--translator {path}: no weights as safetensors, and pickled ones are not read",
            remedy="save them anew with save_pretrained",
        )
    needs_pieces = kind == "marian" or not (path / "tokenizer.json").is_file()
    for package in ("transformers", *(["sentencepiece"] if needs_pieces else [])):
        if find_spec(package) is None:
            raise UsageError(f"--translator {path} needs {package}", remedy=_REMEDY)
    return str(kind)


def fingerprint(path: Path) -> str:
    """A SHA-256 of all that decides the translations: every file of the directory but its notes."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in (".json", ".safetensors", ".spm", ".model", ".txt"):
            with file.open("rb") as stream:
                digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


class Seq2Seq:
    """A checkpoint in memory."""

    def __init__(self, path: Path, decoding: Decoding) -> None:
        """Raises UsageError and InputError as `check_directory` does, InputError for weights that do not fit."""
        kind = check_directory(path)
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self._path, self._decoding = path, decoding
        with _quiet():
            try:
                self._tokenizer: Any = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
                model, loading = AutoModelForSeq2SeqLM.from_pretrained(
                    str(path),
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.bfloat16 if decoding.precision == "bf16" else torch.float32,
                    output_loading_info=True,
                )
            except Exception as error:  # transformers has no common class for what a directory may lack
                cause = " ".join(str(error).split())[:200]
                raise InputError(
                    f"transformers reads no translator here ({cause})", file=str(path)
                ) from error
        for what in ("missing_keys", "mismatched_keys"):
            if loading.get(what):
                name = sorted(map(str, loading[what]))[0]
                raise InputError(f"{what.partition('_')[0]} weights: {name}", file=str(path))
        self._model: Any = model.to(decoding.device).eval()
        self._takes_codes = kind == "mbart"
        positions = int(model.config.max_position_embeddings)
        self._longest = min(positions, int(self._tokenizer.model_max_length))  # tokens of a text
        said: Any = model.generation_config
        self._limit = {}
        if said.max_length is None and said.max_new_tokens is None:
            self._limit = {"max_new_tokens": positions - 1}  # the library's own default would cut after 20
        self.cut = 0  # texts of which only the beginning was read

    def check(self, source: str, target: str) -> None:
        """Raises UsageError for a language that the checkpoint does not know."""
        if self._takes_codes:
            self._code(source)
            self._code(target)
        else:
            self._prefix(target)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """A translation for each text: no sampling, the longest texts first, `batch_size` of them at once."""
        how: dict[str, Any] = {"do_sample": False, "num_return_sequences": 1, **self._limit}
        if self._decoding.beams is not None:
            how["num_beams"] = self._decoding.beams
        if self._takes_codes:
            self._tokenizer.src_lang = self._code(source)
            code = self._tokenizer.convert_tokens_to_ids(self._code(target))
            # mBART-50 is told its language by the first token after the start, mBART by the start itself
            is_50 = "MBart50" in type(self._tokenizer).__name__
            how["forced_bos_token_id" if is_50 else "decoder_start_token_id"] = code
        else:
            texts = [self._prefix(target) + text for text in texts]
        rows = self._ids(texts)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        found = [""] * len(rows)
        size = self._decoding.batch_size
        for start in range(0, len(order), size):
            part = order[start : start + size]
            for i, said in zip(part, self._generate([rows[i] for i in part], how), strict=True):
                found[i] = said.strip()
        return found

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        with _quiet():
            rows: list[list[int]] = self._tokenizer(list(texts))["input_ids"]
            for i, row in enumerate(rows):
                if len(row) > self._longest:
                    self.cut += 1
                    rows[i] = self._tokenizer(texts[i], truncation=True, max_length=self._longest)[
                        "input_ids"
                    ]
        return rows

    def _generate(self, rows: list[list[int]], how: dict[str, Any]) -> list[str]:
        import torch

        with torch.inference_mode(), _quiet():
            padded = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._decoding.device)
            ids = self._model.generate(
                input_ids=padded["input_ids"], attention_mask=padded["attention_mask"], **how
            )
            found: list[str] = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return found

    def _code(self, language: str) -> str:
        """`de` or `de_DE` → the code of the checkpoint."""
        known = list(self._tokenizer.lang_code_to_id)
        wanted = language.replace("-", "_")
        fitting = [code for code in known if code == wanted] or [
            code for code in known if code.partition("_")[0] == wanted
        ]
        if len(fitting) != 1:
            raise UsageError(
                f"--translator {self._path}: it knows no language {language!r}",
                remedy=f"its languages are {', '.join(sorted(known))}",
            )
        return fitting[0]

    def _prefix(self, target: str) -> str:
        """What tells a Marian model of several target languages which one is meant."""
        known: list[str] = self._tokenizer.supported_language_codes
        prefix = f">>{target}<<"
        if not known:
            return ""
        if prefix not in known:
            raise UsageError(
                f"--translator {self._path}: it does not translate to {target!r}",
                remedy=f"its languages are {', '.join(code[2:-2] for code in sorted(known))}",
            )
        return f"{prefix} "


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what transformers says on stderr."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
