"""Keys of images: one for each that can be read, in input order, however many threads make them."""

from __future__ import annotations

import hashlib
import json
import threading

import numpy as np
import pytest
import threadpoolctl

from vlcli.curation.keys import ImageKeys, sha256_key
from vlcli.curation.near_vectors import at_most
from vlcli.images.resolve import ImageReader
from vlcli.records.reader import read


@pytest.mark.parametrize("jobs", [1, 3])
def test_each_image_has_its_key_and_each_failure_its_cause(tmp_path, jobs):
    files = {f"{i}.png": b"%d" % i * 1000 for i in range(50)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    images = [*list(files)[:20], "gone.png", None, *list(files)[20:], "gone.png"]
    rows = (json.dumps({"image": name}) for name in images)
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n")
    keys = ImageKeys(sha256_key, np.uint64, 2, jobs=jobs)
    with ImageReader() as reader:
        for batch in read([str(tmp_path / "rows.jsonl")]):
            for start in range(0, len(batch), 7):
                keys.add(batch.slice(start, 7), reader)
    expected = [np.frombuffer(hashlib.sha256(data).digest()[:16], np.uint64) for data in files.values()]
    assert keys.finish().tolist() == np.array(expected).tolist()
    assert keys.rows == 53
    gone = f"{tmp_path}/gone.png: No such file or directory"
    assert keys.causes == {20: gone, 21: "no image", 52: gone}


def test_as_many_keys_are_made_at_once_as_there_are_threads(tmp_path):
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png"}\n' * 6)
    together = threading.Barrier(3)

    def key(data: bytes) -> int:
        return together.wait(timeout=60) * 0  # breaks where fewer come

    keys = ImageKeys(key, jobs=3)
    with ImageReader() as reader:
        for batch in read([str(tmp_path / "rows.jsonl")]):
            keys.add(batch, reader)
    assert keys.finish().tolist() == [0] * 6


def test_threads_of_vectors_are_bounded_and_not_raised():
    def most() -> int:
        return max(library["num_threads"] for library in threadpoolctl.threadpool_info())

    with threadpoolctl.threadpool_limits(2):
        with at_most(1):
            assert most() == 1
        with at_most(5):
            assert most() == 2
        with at_most(None):
            assert most() == 2
