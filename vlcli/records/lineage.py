"""Which steps made a table: a list of {id, name, version, rules} in the schema metadata of Parquet and Arrow.

The idea is samtools' @PG header. It holds neither paths nor times nor command lines, so equal work gives
equal bytes; JSONL has no header and carries none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

KEY = b"vlcli:pg"

Chain = tuple[dict[str, Any], ...]


def from_metadata(metadata: Mapping[bytes, bytes] | None) -> Chain:
    """The chain in schema metadata, oldest first; () where there is none or it is not ours."""
    try:
        steps = orjson.loads((metadata or {}).get(KEY, b"[]"))
    except orjson.JSONDecodeError:
        return ()
    return tuple(s for s in steps if isinstance(s, dict)) if isinstance(steps, list) else ()


def to_metadata(chain: Sequence[Mapping[str, Any]]) -> dict[bytes, bytes]:
    return {KEY: orjson.dumps(list(chain))} if chain else {}


def step(name: str, version: str, rules: Any) -> dict[str, Any]:
    """One step: the program, its version, and what it was asked to do (anything JSON can hold)."""
    return {"name": name, "version": version, "rules": rules}


def extend(chain: Chain, new: Mapping[str, Any] | None) -> Chain:
    """`chain` with one more step; its id is its name, with a number where the chain has that id."""
    if new is None:
        return chain
    taken = {s.get("id") for s in chain}
    name = str(new["name"])
    identity, count = name, 1
    while identity in taken:
        identity, count = f"{name}.{count}", count + 1
    return (*chain, {"id": identity, **new})
