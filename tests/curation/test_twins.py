"""Pairs that are near, against the slow form: every row with every other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import vlcli.curation.near_vectors as near_vectors_module
from vlcli.curation.bounds import Bound
from vlcli.curation.embeddings import Vectors
from vlcli.curation.fewer_dimensions import FewerDimensions, axes_for
from vlcli.curation.groups import Groups
from vlcli.curation.hamming import near_codes
from vlcli.curation.near_vectors import Clusters, near_vectors
from vlcli.curation.twins import Bytes, Cosines, Hashes
from vlcli.errors import InputError, UsageError

ALIGN = Bound(">", 0.975)
EXACT = Clusters(0)


def quiet(what, rows):
    pass


def literal_groups(n, links):
    """The first row of each row's group, by walking from row to row."""
    beside = {i: {i} for i in range(n)}
    for a, b in links:
        beside[a].add(b)
        beside[b].add(a)
    first = [-1] * n
    for i in range(n):
        todo = [i] if first[i] < 0 else []
        while todo:
            row = todo.pop()
            if first[row] < 0:
                first[row] = i
                todo += beside[row]
    return first


def found(pairs):
    """All pairs as a set; each may come once only."""
    rows = [(int(a), int(b)) for x, y, _ in pairs for a, b in zip(x, y, strict=True)]
    assert len(rows) == len(set(rows))
    return set(rows)


def close_codes(rng, n):
    """Codes of which many are some bits from others."""
    codes = rng.integers(0, 1 << 63, n, dtype=np.uint64)
    for i in range(n // 3, n):
        bits = rng.choice(64, rng.integers(1, 9), replace=False).astype(np.uint64)
        codes[i] = codes[rng.integers(i)] ^ np.bitwise_or.reduce(np.uint64(1) << bits)
    return codes


def close_vectors(rng, n, dim=24, noise=0.22):
    """Directions of which many are near others, some of them just about the bound."""
    x = rng.normal(size=(n, dim)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(n // 3, n):
        x[i] = x[rng.integers(i)] + noise * rng.uniform(0.2, 1.4) * rng.normal(size=dim) / np.sqrt(dim)
    return x * rng.uniform(0.5, 3, (n, 1)).astype(np.float32)


def small_tiles(monkeypatch):
    """Many products where there would be one, in segments that end within tiles."""
    sizes = {"SEGMENT": 300, "ROWS": 130, "COLUMNS": 170, "FIRST": 64, "MOST": 5000, "EXACT": 2000}
    for name, size in sizes.items():
        monkeypatch.setattr(near_vectors_module, name, size)


def test_groups_are_those_of_a_walk():
    rng = np.random.default_rng(0)
    for n, m in ((1, 0), (5, 3), (40, 25), (300, 200), (300, 900)):
        links = rng.integers(0, n, (m, 2))
        groups = Groups(n)
        for part in np.array_split(links, 3):
            groups.link(part[:, 0], part[:, 1])
        assert groups.first().tolist() == literal_groups(n, links.tolist())


@pytest.mark.parametrize(
    ("radius", "bands"), [(0, 1), (0, 3), (1, 2), (3, 1), (4, 2), (4, 5), (7, 1), (7, 3), (12, 2), (31, 1)]
)
def test_codes_within_the_radius_are_all_found_and_no_others(radius, bands, monkeypatch):
    monkeypatch.setattr("vlcli.curation.hamming._agreeing", lambda *_: bands)
    monkeypatch.setattr("vlcli.curation.hamming.MOST", 7)  # many parts
    rng = np.random.default_rng(radius)
    codes, others = np.unique(close_codes(rng, 160)), close_codes(rng, 50)
    others = np.append(others, codes[:30] ^ np.uint64(5))
    near = {
        (i, j)
        for i, j in itertools.combinations(range(len(codes)), 2)
        if (int(codes[i]) ^ int(codes[j])).bit_count() <= radius
    }
    assert found(near_codes(codes, radius)) == near
    assert all(a < b for a, b in near)
    across = {
        (i, j)
        for i in range(len(codes))
        for j in range(len(others))
        if (int(codes[i]) ^ int(others[j])).bit_count() <= radius
    }
    assert found(near_codes(codes, radius, others)) == across
    for a, b, distance in near_codes(codes, radius):
        assert (np.bitwise_count(codes[a] ^ codes[b]) == distance).all()


def test_hashes_give_way_to_the_first_of_their_group_or_to_the_nearest_other():
    rng = np.random.default_rng(1)
    keys = rng.permutation(np.repeat(close_codes(rng, 60), 2))
    links = [
        (i, j)
        for i, j in itertools.combinations(range(len(keys)), 2)
        if (int(keys[i]) ^ int(keys[j])).bit_count() <= 5
    ]
    twins = Hashes(5).among(keys, quiet)
    first = literal_groups(len(keys), links)
    assert twins.twin.tolist() == [-1 if f == i else f for i, f in enumerate(first)]
    chained = [i for i, f in enumerate(first) if (int(keys[i]) ^ int(keys[f])).bit_count() > 5]
    assert chained == [i for i in range(len(keys)) if Hashes(5).beyond(twins.measure[i])]
    others = np.append(keys[:20] ^ np.uint64(9), keys[:5])
    against = Hashes(5).against(keys, others, quiet)
    for i, key in enumerate(keys):
        bits = [(int(key) ^ int(other)).bit_count() for other in others]
        assert against.twin[i] == (int(np.argmin(bits)) if min(bits) <= 5 else -1)


def test_bytes_are_equal_or_not():
    names = [b"a", b"b", b"a", b"c", b"b", b"a"]
    keys = np.array([(1, ord(name)) for name in names], np.uint64)
    twins = Bytes().among(keys, quiet)
    assert twins.twin.tolist() == [-1, -1, 0, -1, 1, 0]
    others = np.array([(1, ord("b")), (2, ord("a")), (1, ord("b")), (1, ord("c"))], np.uint64)
    twins = Bytes().against(keys, others, quiet)
    assert twins.twin.tolist() == [-1, 0, -1, 3, 0, -1]
    empty = np.empty((0, 2), np.uint64)
    assert Bytes().among(empty, quiet).twin.tolist() == []
    assert Bytes().against(keys, empty, quiet).twin.tolist() == [-1] * 6


@pytest.mark.parametrize("bound", [ALIGN, Bound(">=", 0.9)])
def test_all_with_all_is_every_cosine_within_the_bound(bound, monkeypatch):
    small_tiles(monkeypatch)
    rng = np.random.default_rng(2)
    x, y = close_vectors(rng, 150), close_vectors(rng, 40)
    y[:20] = x[30:50] * 2
    for others in (None, y):
        target = x if others is None else others
        near = set()
        for i, j in itertools.product(range(len(x)), range(len(target))):
            a, b = x[i].astype(float), target[j].astype(float)
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            assert abs(cosine - bound.value) > 1e-7  # no pair stands on the bound itself
            if bound.holds(cosine) and (others is not None or i < j):
                near.add((i, j))
        assert len(near) > 20
        halves = Vectors([x[:70], x[70:]])
        got = near_vectors(halves, bound, EXACT, None if others is None else Vectors([others]))
        assert found(got) == near


@pytest.mark.parametrize(
    ("bound", "recall", "dim", "clusters"),
    [
        (ALIGN, 0.97, 24, Clusters(30)),
        (ALIGN, 0.97, 160, Clusters(30, 7, 3)),
        (Bound(">", 0.2), 0, 24, Clusters(30)),
        (Bound(">", 0.1), 0, 160, Clusters(30, 5, 3)),
    ],
)
def test_the_clusters_are_the_papers_buckets(bound, recall, dim, clusters, monkeypatch):
    """Literally: a bucket for each 3 of an image's 10 clusters; candidates share one; cosine above the bound.

    Under a low bound it is the buckets that decide. 160 dimensions are multiplied in fewer first.
    """
    rng = np.random.default_rng(3)
    x, seen = Vectors([close_vectors(rng, 1200, dim)]), []
    nearest = near_vectors_module._nearest
    monkeypatch.setattr(near_vectors_module, "_nearest", lambda *a: seen.append(nearest(*a)) or seen[-1])
    small_tiles(monkeypatch)
    by_clusters = found(near_vectors(x, bound, clusters))
    assert isinstance(seen[0][1], FewerDimensions) == (dim == 160 and bound is ALIGN)
    everything = found(near_vectors(x, bound, EXACT))
    buckets: dict[tuple[int, ...], list[int]] = {}
    for row, mine in enumerate(seen[0][0]):
        for three in itertools.combinations(sorted(mine.tolist()), clusters.shared):
            buckets.setdefault(three, []).append(row)
    candidates = {pair for rows in buckets.values() for pair in itertools.combinations(rows, 2)}
    assert by_clusters == everything & candidates
    assert len(everything) > 500
    assert len(by_clusters) >= recall * len(everything)
    assert bound is ALIGN or by_clusters != everything
    across = found(near_vectors(x, bound, clusters, Vectors([x.parts[0][:90]])))
    either = by_clusters | {(b, a) for a, b in by_clusters} | {(i, i) for i in range(1200)}
    assert across == {(a, b) for a, b in either if b < 90}


@pytest.mark.parametrize("clusters", [0, 30])
def test_linking_makes_the_groups_of_all_pairs_and_passes_over_what_is_linked(clusters, monkeypatch):
    """Of 1,500 vectors 600 are nearly equal, and 300 about as near to each other as the bound."""
    rng = np.random.default_rng(5)
    x = close_vectors(rng, 1500, 160)
    places = rng.permutation(1500)
    for some, noise in ((places[:600], 0.05), (places[600:900], 0.16)):
        x[some] = x[some[0]] / np.linalg.norm(x[some[0]]) + noise * rng.normal(
            size=(len(some), 160)
        ) / np.sqrt(160)
    small_tiles(monkeypatch)
    vectors, groups = Vectors([x]), Groups(1500)
    everything = found(near_vectors(vectors, ALIGN, Clusters(clusters)))
    parts = list(near_vectors(vectors, ALIGN, Clusters(clusters), groups=groups))
    linking = {(int(a), int(b)) for x, y, _ in parts for a, b in zip(x, y, strict=True)}
    assert groups.first().tolist() == literal_groups(1500, everything)
    assert linking < everything
    assert len(everything) > 100_000
    assert len(linking) < len(everything) / 3


def test_no_pair_seems_farther_apart_in_fewer_dimensions():
    rng = np.random.default_rng(6)
    directions = rng.normal(size=(400, 160)) * np.arange(1, 161) ** -0.5 / 4
    axes = axes_for(directions.astype(np.float32), 0.975)
    assert axes.shape == (160, 40)
    np.testing.assert_allclose(axes.T @ axes, np.eye(40), atol=1e-6)
    x = np.concatenate(
        [
            close_vectors(rng, 300, 160),
            (axes @ rng.normal(size=(40, 50))).T,  # nothing beside the axes
            (rng.normal(size=(50, 160)) @ (np.eye(160) - axes @ axes.T)),  # nothing but
            np.zeros((3, 160)),
        ]
    ).astype(np.float32)
    vectors = Vectors([x]).take(np.arange(len(x)))
    fewer = FewerDimensions(axes, len(x))
    for rows in np.array_split(np.arange(len(x)), 3):
        fewer.put(rows, vectors[rows])
    rows = rng.permutation(len(x))
    there, here = fewer.take(rows).astype(float), vectors[rows].astype(float)
    assert there.shape == (len(x), 41)
    assert (there @ there.T >= here @ here.T - 1e-6).all()
    near = np.triu(here @ here.T > 0.9, 1)
    assert near.sum() > 100
    assert np.abs(there @ there.T - here @ here.T)[near].max() < 0.1  # and it is a bound of some use
    assert axes_for(directions.astype(np.float32), 0.2) is None
    assert axes_for(directions[:, :100].astype(np.float32), 0.975) is None


def test_cosines_keep_the_first_of_a_group_and_the_nearest_of_a_set():
    rng = np.random.default_rng(4)
    x = close_vectors(rng, 120)
    way = Cosines(ALIGN, EXACT)
    twins = way.among(Vectors([x]), quiet)
    links = found(near_vectors(Vectors([x]), ALIGN, EXACT))
    first = literal_groups(120, links)
    assert twins.twin.tolist() == [-1 if f == i else f for i, f in enumerate(first)]
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    for i in np.flatnonzero(twins.twin >= 0):
        assert twins.measure[i] == pytest.approx(unit[i] @ unit[twins.twin[i]], abs=1e-6)
    against = way.against(Vectors([x]), Vectors([x[40:80]]), quiet)
    scores = unit @ unit[40:80].T
    for i in range(120):
        best = int(scores[i].argmax())
        assert against.twin[i] == (best if scores[i, best] > 0.975 else -1)


def test_what_cannot_be_compared_is_said():
    x = np.ones((3, 4), np.float32)
    with pytest.raises(UsageError, match="4 dimensions cannot be compared with 5"):
        found(near_vectors(Vectors([x]), ALIGN, EXACT, Vectors([np.ones((2, 5), np.float32)])))
    with pytest.raises(UsageError, match="--shared 4"):
        Clusters(nearest=3, shared=4)
    x[1, 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        found(near_vectors(Vectors([x]), ALIGN, EXACT))
    zeros = Vectors([np.zeros((3, 4), np.float32)])
    assert found(near_vectors(zeros, ALIGN, EXACT)) == set()
    assert found(near_vectors(Vectors([]), ALIGN, EXACT)) == set()
