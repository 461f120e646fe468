"""Tables of names against hand-written renames, and every row there and back on random tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlcli.models.adapters.names import (
    POSITIONS,
    TEMPERATURE,
    TOKEN,
    TRANSPOSED,
    Row,
    joined,
    listed,
    pair,
    to_ours,
    to_theirs,
    under,
)


def test_numbers_parts_and_reshapes_by_hand():
    rows = (
        *joined("a.{n}.qkv", "layers.{n}.q", "layers.{n}.k", "layers.{n}.v"),
        *pair("a.{n+1}.down", "layers.{n}.merge"),
        Row("proj.weight", "proj", TRANSPOSED),
        Row("cls", "class", TOKEN),
        Row("pos", "position", POSITIONS),
    )
    theirs = {
        f"layers.{n}.{p}.{k}": torch.randn(4, 4) for n in (0, 11) for p in "qkv" for k in ("weight", "bias")
    }
    theirs |= {"layers.0.merge.weight": torch.randn(2, 3), "layers.9.merge.bias": torch.randn(2)}
    theirs |= {"proj": torch.randn(3, 5), "class": torch.randn(6), "position": torch.randn(4, 6)}
    placed = to_ours(rows, theirs)
    assert not placed.unplaced
    assert not placed.incomplete
    assert placed.state.keys() == {
        *(f"a.{n}.qkv.{k}" for n in (0, 11) for k in ("weight", "bias")),
        "a.1.down.weight",
        "a.10.down.bias",
        "proj.weight",
        "cls",
        "pos",
    }
    assert torch.equal(placed.state["a.11.qkv.weight"][4:8], theirs["layers.11.k.weight"])
    assert torch.equal(placed.state["proj.weight"], theirs["proj"].T)
    assert placed.state["cls"].shape == (1, 1, 6)
    assert placed.state["pos"].shape == (1, 4, 6)
    back = to_theirs(rows, placed.state).state
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


def test_what_has_no_place_and_what_is_missing_beside_others_is_said():
    rows = joined("qkv", "q", "k", "v")
    placed = to_ours(
        rows,
        {"q.weight": torch.ones(1), "v.weight": torch.ones(1), "x": torch.ones(1), "b.ids": torch.ones(1)},
        known=[r".*\.ids"],
    )
    assert placed.unplaced == ["x"]
    assert placed.incomplete == ["k.weight"]
    assert placed.state == {}
    assert to_theirs(rows, {"other": torch.ones(1)}).unplaced == ["other"]


def test_a_dot_is_a_dot_and_numbers_agree():
    rows = (Row("a.{n}.b.{n}", "x.{n}.y.{n}"),)
    state = {"x.1.y.1": torch.ones(1), "x.1.y.2": torch.ones(1), "xx1.y.1": torch.ones(1)}
    placed = to_ours(rows, state)
    assert list(placed.state) == ["a.1.b.1"]
    assert placed.unplaced == ["x.1.y.2", "xx1.y.1"]


def test_prefixes():
    assert under([Row("a", ("b", "c"))], "p.", "q.") == (Row("p.a", ("q.b", "q.c")),)


@given(st.floats(0.0009765625, 0.5, width=32))
def test_a_temperature_comes_back_in_every_bit(value):
    stored = torch.tensor(value)
    assert torch.equal(TEMPERATURE.to_theirs(TEMPERATURE.to_ours(stored)), stored)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "1 tensor: a"),
        (["a", "b", "c"], "3 tensors: a, b, c"),
        (list("abcde"), "5 tensors: a, b, c and 2 more"),
    ],
)
def test_lists(names, said):
    assert listed(names) == said
