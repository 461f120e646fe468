"""Vectors on disk: a search finds what a loop over all of them finds, and refuses what is not the model's."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import square, tiny

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.search import Query, query_vector
from vlcli.evaluation.vector_index import VectorIndex
from vlcli.evaluation.vectors import ModelVectors
from vlcli.text.prompts import load_prompts

NONE = load_prompts("none")
PARTS = (7, 0, 5, 9)


def directory(place, model, **said):
    """What `vlcli embed` would write, of random vectors; returns them all."""
    generator = np.random.default_rng(0)
    everything = []
    for folder in ("img_emb", "metadata"):
        (place / folder).mkdir(parents=True)
    for part, count in enumerate(PARTS):
        vectors = generator.normal(size=(count, 16))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        np.save(place / "img_emb" / f"img_emb_{part}.npy", vectors)
        names = [f"{part}/{row}" for row in range(count)]
        table = pa.table(
            {"id": pa.array(names, pa.string()), "caption": pa.array([f"c{n}" for n in names], pa.string())}
        )
        pq.write_table(table, place / "metadata" / f"metadata_{part}.parquet")
        everything += [(name, vector.astype(float)) for name, vector in zip(names, vectors, strict=True)]
    record = {"encoder": ModelVectors(model).record(), "vectors": sum(PARTS), **said}
    (place / "embed.json").write_text(json.dumps(record))
    return everything


@pytest.mark.parametrize("kind", ["global", "tokenwise"])
@pytest.mark.parametrize("query", [Query("红色"), Query(picture=square("red"), name="red.png", plus="黑色")])
def test_a_search_finds_what_a_loop_finds(kind, query, tmp_path):
    model = tiny(kind)
    everything = directory(tmp_path, model)
    index = VectorIndex(tmp_path, model)
    assert len(index) == 21
    vector = query_vector(model, query, NONE)
    cosines = {
        name: sum(a * b for a, b in zip(vector.tolist(), one, strict=True)) / np.linalg.norm(one)
        for name, one in everything
    }
    expected = sorted(cosines, key=lambda name: -cosines[name])
    for k in (1, 6, 21, 50):
        found = index.search(query, NONE, k)
        assert [row["id"] for row in found] == expected[:k]
        assert [row["score"] for row in found] == pytest.approx([cosines[n] for n in expected[:k]], abs=2e-6)
        assert [row["text"] for row in found] == [[f"c{name}"] for name in expected[:k]]
    for size in (1, 4, 7, 100):
        blocks = list(index.blocks(size))
        assert [start for start, _ in blocks] == list(range(0, 21, size))
        assert max(len(block) for _, block in blocks) <= size


def test_vectors_of_another_model_are_refused(tmp_path):
    model = tiny("global")
    directory(tmp_path / "other", model, encoder={**ModelVectors(model).record(), "checkpoint": "f" * 16})
    with pytest.raises(UsageError, match=f"vectors of {'f' * 16}, not of checkpoint 0123456789abcdef"):
        VectorIndex(tmp_path / "other", model)
    directory(tmp_path / "unsaid", model, encoder=None)
    with pytest.raises(UsageError, match="nothing says which checkpoint"):
        VectorIndex(tmp_path / "unsaid", model)
    with pytest.raises(UsageError, match="no embeddings"):
        VectorIndex(tmp_path, model)


def test_damaged_files_are_named(tmp_path):
    model = tiny("global")
    directory(tmp_path / "short", model)
    file = tmp_path / "short" / "img_emb" / "img_emb_2.npy"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"img_emb_2\.npy: not an array"):
        VectorIndex(tmp_path / "short", model)
    directory(tmp_path / "fewer", model, vectors=22)
    with pytest.raises(InputError, match=r"21 vectors, embed\.json says 22"):
        VectorIndex(tmp_path / "fewer", model)
