import numpy as np
import pytest
import torch
from tiny_models import tiny

from vlcli.errors import UsageError
from vlcli.evaluation.alignment import Text, align, encode_label, encode_patches


def text_of(model, label, prompt="{}"):
    return encode_label(model, label, prompt)


def test_indices_and_similarities_equal_the_formula_token_by_token():
    model = tiny()
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    patches, grid = encode_patches(model, pixels)
    text = text_of(model, "一只狐狸")
    found = align(patches[0], text, grid)
    assert grid == model.grid == found.index.shape
    with torch.no_grad():
        words = model.encode_text(*model.tokenize(["一只狐狸"])).tokens[0]
    for r in range(grid[0]):
        for c in range(grid[1]):
            patch = patches[0, r * grid[1] + c]
            scores = [float(patch @ word) for word in words]  # [CLS] 一 只 狐 狸 [SEP]
            assert found.index[r, c] == max(range(6), key=scores.__getitem__)
            assert found.similarity[r, c] == pytest.approx(sum(scores[1:5]) / 4, abs=1e-6)
    assert found.share == pytest.approx(np.isin(found.index, [1, 2, 3, 4]).mean())


def test_positions_are_a_sub_sequence_of_the_prompt():
    text = text_of(tiny(), "狐狸", "一张{}的照片")
    assert text.tokens == ["[CLS]", "一", "张", "狐", "狸", "的", "照", "片", "[SEP]"]
    assert text.positions == [3, 4]
    assert text_of(tiny(), "豆娘").positions == [1, 2]
    assert text_of(tiny(), "照", "{}照片").positions == [1, 2]  # wherever the word stands


def test_maps_of_known_vectors():
    # Patches look along axis 0 (CLS), 1 (first letter), 2 (second letter), 3 (SEP).
    text = Text("狐狸", "狐狸", ["[CLS]", "狐", "狸", "[SEP]"], [1, 2], torch.eye(4))
    found = align(torch.eye(4), text, (2, 2))
    assert found.index.tolist() == [[0, 1], [2, 3]]
    assert found.on_label.tolist() == [[False, True], [True, False]]
    assert found.similarity.tolist() == [[0.0, 0.5], [0.5, 0.0]]
    data = found.as_json()
    assert data["label_positions"] == [1, 2]
    assert data["share_on_label"] == 0.5
    assert data["grid"] == [2, 2]


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(UsageError, match="global"):
        encode_patches(tiny("global"), torch.zeros(1, 3, 64, 64))
    with pytest.raises(UsageError, match="has no tokens"):
        text_of(tiny(), "  ")
    with pytest.raises(UsageError, match="longer than the model's context"):
        text_of(tiny(), "狐" * 80)
    with pytest.raises(UsageError, match="exactly one"):
        text_of(tiny(), "狐狸", "照片")
