"""Pickles read without calling anything that they name: numpy arrays and what holds them, TorchScript archives.

A pickle is a program, and its instructions name functions. Here every name that weights need stands for a small object
of our own that only keeps what it is given; any other name ends the reading. No function of numpy, torch or MindSpore
is called while the pickle runs, and TorchScript's code is not looked at.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlcli.errors import InputError

Names = Mapping[tuple[str, str], Any]

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMBERS = {
    f"{kind}{size}" for kind, sizes in (("f", "248"), ("i", "1248"), ("u", "1"), ("b", "1")) for size in sizes
}


class _Held:
    """Keeps what a pickle gives to a class: arguments, then state."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(
        cls, *arguments: Any
    ) -> _Held:  # not __init__, which one of pickle's two ways of making leaves out
        held = super().__new__(cls)
        held.arguments, held.state = arguments, None
        return held

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Restricted(pickle.Unpickler):
    def __init__(
        self, data: io.IOBase, names: Callable[[str, str], Any], storage: Callable[[Any], Any]
    ) -> None:
        super().__init__(data, encoding="latin1")
        self._names, self._storage = names, storage

    def find_class(self, module: str, name: str) -> Any:
        found = self._names(module, name)
        if found is None:
            raise InputError(
                f"its pickle names {module}.{name}, which weights do not need: nothing of it is run"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)


def _load(data: Any, names: Callable[[str, str], Any], storage: Callable[[Any], Any]) -> Any:
    try:
        return _Restricted(data, names, storage).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle raises whatever its wrong instruction runs into
        raise InputError(
            f"damaged pickle ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def _no_storage(pid: Any) -> Any:
    raise InputError("its pickle refers to data outside itself")


def _new(name: str) -> type[_Held]:
    """A class of its own for every reading: what a pickle does to it ends with it."""
    return type(name, (_Held,), {})


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The pickled dict of numpy arrays, or of MindSpore tensors and parameters, in the file `path`.

    Knows `numpy.core` and `numpy._core`. Raises InputError for whatever else a pickle may hold.
    """
    dtype, array, held = _new("dtype"), _new("array"), _new("tensor")

    def frombuffer(data: bytes, kind: _Held, shape: Any, order: str = "C") -> _Held:
        found = array()
        found.state = (1, shape, kind, order == "F", data)
        return found

    numpy = {
        "_reconstruct": lambda *_: array(),
        "_frombuffer": frombuffer,
        "scalar": lambda kind, data: frombuffer(data, kind, ()),
    }
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): array,
        ("numpy", "dtype"): dtype,
        ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
        ("collections", "OrderedDict"): lambda *pairs: dict(*pairs),
    }
    for core in ("numpy.core", "numpy._core"):
        table |= {(f"{core}.{part}", name): numpy[name] for part, name in _NUMPY}
    table |= dict.fromkeys(_MINDSPORE, held)
    with open(path, "rb") as file:
        found = _load(file, lambda module, name: table.get((module, name)), _no_storage)
    if not isinstance(found, dict):
        raise InputError("its pickle holds no dict of arrays")
    return {str(name): _tensor(name, value, array, held, dtype) for name, value in found.items()}


_NUMPY = (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
_MINDSPORE = (
    ("mindspore.common.parameter", "Parameter"),
    ("mindspore.common.tensor", "Tensor"),
    ("mindspore._c_expression", "Tensor"),
)


def _tensor(name: str, value: Any, array: type[_Held], held: type[_Held], dtype: type[_Held]) -> Tensor:
    """An array, also inside a MindSpore Tensor (as its state) or Parameter (its first argument)."""
    for _ in range(4):
        if not isinstance(value, held):
            break
        inner = value.state if value.state is not None else value.arguments
        value = inner[0] if isinstance(inner, tuple) and inner else inner
    if not isinstance(value, array):
        raise InputError(f"its pickle holds no array at {name!r}")
    try:
        _, shape, kind, fortran, data = value.state
        assert isinstance(kind, dtype)
        assert isinstance(data, bytes | bytearray)
        code, order = kind.arguments[0], kind.state[1] if kind.state else "="
        assert code in _NUMBERS
        assert order in ("<", ">", "=", "|")
        flat = np.frombuffer(data, np.dtype(order + code if order != "|" else code))
        shape = tuple(int(side) for side in shape)
        found = flat.reshape(shape, order="F" if fortran else "C")
    except (AssertionError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"its pickle holds no array of numbers at {name!r}") from error
    return torch.from_numpy(found.astype(found.dtype.newbyteorder("="), order="C", copy=True))


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """TorchScript archives are torch's zip files with a table of constants."""
    return any(name.count("/") == 1 and name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The state dict of a TorchScript archive: parameters and buffers by their place in the tree of modules."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        records: dict[str, Tensor] = {}

        def storage(pid: Any) -> Tensor:
            kind, dtype, key, _, count = pid
            if kind != "storage" or not isinstance(dtype, torch.dtype) or not str(key).isdecimal():
                raise InputError("its pickle refers to data outside itself")
            if key not in records:
                data = bytearray(archive.read(f"{root}/data/{key}"))
                if len(data) != count * dtype.itemsize:
                    raise InputError(f"record {key} has {len(data)} bytes of {count * dtype.itemsize}")
                records[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            return records[key]

        module = _new("module")

        def names(package: str, name: str) -> Any:
            if package == "__torch__" or package.startswith("__torch__."):
                return module
            if package == "torch" and name in _STORAGES:
                return _STORAGES[name]
            return _SCRIPT.get((package, name))

        if archive.getinfo(f"{root}/data.pkl").file_size > _MAX_PROGRAM:
            raise InputError("its data.pkl is no table of tensors")
        order = f"{root}/byteorder"
        if order in archive.namelist() and archive.read(order) != sys.byteorder.encode():
            raise InputError("its numbers are in another machine's byte order")
        tree = _load(io.BytesIO(archive.read(f"{root}/data.pkl")), names, storage)
    state: dict[str, Tensor] = {}
    if not isinstance(tree, module):
        raise InputError("it holds no module")
    _walk(tree, module, "", state)
    return state


_MAX_PROGRAM = 256 << 20


def _rebuild(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, when it lies inside."""
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    whole = all(isinstance(x, int) and x >= 0 for x in (offset, *size, *stride))
    if not whole or (math.prod(size) and last >= storage.numel()):
        raise InputError("a tensor lies outside its record")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any = None, *_: Any) -> Any:
    return value


_SCRIPT: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("collections", "OrderedDict"): lambda *_: {},
    **{
        ("torch.jit._pickle", name): _first
        for name in (
            "build_intlist",
            "build_tensorlist",
            "build_doublelist",
            "build_boollist",
            "restore_type_tag",
        )
    },
}


def _walk(value: Any, module: type, prefix: str, state: dict[str, Tensor], depth: int = 0) -> None:
    if depth > 200 or not isinstance(value.state, dict):
        raise InputError("its tree of modules is none")
    for name, inner in value.state.items():
        if isinstance(inner, Tensor):
            state[f"{prefix}{name}"] = inner
        elif isinstance(inner, module):
            _walk(inner, module, f"{prefix}{name}.", state, depth + 1)
