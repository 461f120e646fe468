"""A faiss index beside embeddings: what it finds, what is said of its loss, and what is refused."""

from __future__ import annotations

import json

import faiss
import numpy as np
import pytest
from test_vector_index import NONE, PARTS, directory
from tiny_models import tiny

from vlcli.curation.embeddings import Embeddings
from vlcli.errors import InputError, UsageError
from vlcli.evaluation.faiss_index import FaissIndex, build_index
from vlcli.evaluation.search import Query
from vlcli.evaluation.vector_index import VectorIndex


@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF2,Flat"])
def test_it_finds_what_the_exact_search_finds(kind, tmp_path):
    model = tiny("tokenwise")
    directory(tmp_path, model)
    said = build_index(tmp_path, kind)
    assert said["vectors"] == sum(PARTS)
    assert said["bytes"] == (tmp_path / "image.index").stat().st_size
    assert said["recall@10"] == 100.0
    query = Query("红色")
    whole = VectorIndex(tmp_path, model).search(query, NONE, 5)
    found = VectorIndex(tmp_path / "image.index", model).search(query, NONE, 5)
    assert [row["id"] for row in found] == [row["id"] for row in whole]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in whole], abs=2e-3)
    assert len(VectorIndex(tmp_path / "image.index", model).search(query, NONE, 99)) == sum(PARTS)


def test_the_loss_is_measured(tmp_path):
    """One list of many is looked into: what is said is what a count by hand says."""
    generator = np.random.default_rng(1)
    (tmp_path / "img_emb").mkdir()
    vectors = generator.normal(size=(5000, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", vectors)
    said = build_index(tmp_path, "IVF64,PQ2x4")
    assert 10 < said["recall@10"] < 95
    assert build_index(tmp_path, "Flat")["recall@10"] == 100.0
    assert not list(tmp_path.glob(".*"))


def test_what_is_no_index_of_these_vectors_is_refused(tmp_path):
    model = tiny("global")
    directory(tmp_path, model)
    with pytest.raises(UsageError, match="--faiss Flt"):
        build_index(tmp_path, "Flt")
    with pytest.raises(UsageError, match=r"--faiss IVF999,Flat: .*21 vectors"):
        build_index(tmp_path, "IVF999,Flat")
    assert not (tmp_path / "image.index").exists()
    build_index(tmp_path, "Flat")
    file, vectors = tmp_path / "image.index", Embeddings(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="no faiss index"):
        FaissIndex(file, vectors)
    faiss.write_index(faiss.IndexFlatIP(16), str(file))
    with pytest.raises(UsageError, match="is of 0 vectors of 16, beside it are 21 of 16"):
        FaissIndex(file, vectors)
    by_distance = faiss.IndexFlatL2(16)
    by_distance.add(vectors.take(np.arange(21)))
    faiss.write_index(by_distance, str(file))
    with pytest.raises(UsageError, match="not of inner products"):
        FaissIndex(file, vectors)


def test_a_text_index_is_not_of_images(tmp_path):
    (tmp_path / "text_emb").mkdir()
    (tmp_path / "embed.json").write_text(json.dumps({}))
    with pytest.raises(UsageError, match="no embeddings"):
        build_index(tmp_path, "Flat")
