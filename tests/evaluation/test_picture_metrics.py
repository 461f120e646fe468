"""KID and FID beside torchmetrics, moments beside numpy's; Inception beside pytorch-fid's; who may judge pictures."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import table, tiny
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from vlcli.errors import InputError, UsageError
from vlcli.evaluation.picture_metrics import inception
from vlcli.evaluation.picture_metrics.features import FeatureNet, open_features
from vlcli.evaluation.picture_metrics.fid import Moments, frechet_distance, moments
from vlcli.evaluation.picture_metrics.kid import kid, squared_mmd
from vlcli.evaluation.picture_metrics.score import distances, fidelity, makers
from vlcli.generation.rows import GENERATED_BY, generated_by
from vlcli.images.config import PreprocessConfig


def vectors(n, d=8, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, d))


def literal_mmd(x, y):
    def kernel(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(a, b) for a in x for b in y) / (n * m)


def test_kid_is_the_sum_over_pairs():
    x, y = vectors(5), vectors(7, seed=1, shift=0.5)
    assert squared_mmd(x, y) == pytest.approx(literal_mmd(x, y), rel=1e-12)


def test_kid_is_torchmetrics_on_the_same_subset():
    x, y = vectors(40), vectors(40, seed=1, shift=0.3)
    expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-10)
    whole = kid(x, y, subsets=3, size=40)  # a subset of all is all
    assert whole.mean == pytest.approx(expected, rel=1e-10)
    assert whole.deviation == pytest.approx(0, abs=1e-12)


def test_kid_of_one_distribution_is_nothing_on_average_and_of_two_is_not():
    same = kid(vectors(400), vectors(400, seed=1), subsets=50)
    apart = kid(vectors(400), vectors(400, seed=1, shift=0.5), subsets=50)
    assert (same.subsets, same.size) == (50, 200)
    assert abs(same.mean) < 3 * same.deviation < apart.mean


def test_fid_is_torchmetrics_of_the_same_vectors():
    x, y = vectors(50), vectors(60, seed=1, shift=0.3) @ np.diag(np.linspace(0.5, 2, 8))
    of = [(torch.from_numpy(v.mean(0)), torch.from_numpy(np.cov(v.T))) for v in (x, y)]
    expected = float(_compute_fid(*of[0], *of[1]))
    assert frechet_distance(moments([x], 8), moments([y], 8)) == pytest.approx(expected, rel=1e-9)


def test_fid_by_hand():
    # one dimension: (μ − ν)² + (σ − τ)²
    x, y = np.array([[0.0], [2.0]]), np.array([[3.0], [9.0]])
    sigma, tau = np.sqrt(2), np.sqrt(18)
    expected = (1 - 6) ** 2 + (sigma - tau) ** 2
    assert frechet_distance(moments([x], 1), moments([y], 1)) == pytest.approx(expected)


def test_fid_with_fewer_vectors_than_dimensions_is_a_number():
    """Covariances without full rank: the trace of the root is the nuclear norm of the centred vectors' product."""
    x, y = vectors(5, d=20), vectors(6, d=20, seed=1)
    a, b = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (x, y))
    apart = x.mean(0) - y.mean(0)
    expected = apart @ apart + (a**2).sum() + (b**2).sum()
    expected -= 2 * np.linalg.svd(a @ b.T, compute_uv=False).sum()
    assert frechet_distance(moments([x], 20), moments([y], 20)) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(moments([x], 20), moments([x], 20)) == pytest.approx(0, abs=1e-6)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
def test_moments_in_batches_are_those_of_the_whole(sizes, far):
    batches = [vectors(n, 3, seed=i, shift=far) for i, n in enumerate(sizes)]
    whole = np.concatenate(batches)
    if len(whole) < 2:
        return
    found = moments(batches, 3)
    assert found.count == len(whole)
    assert found.mean == pytest.approx(whole.mean(0), rel=1e-12)
    assert found.covariance == pytest.approx(np.cov(whole.T), rel=1e-6, abs=1e-6)


def test_a_covariance_of_one_vector_is_a_bug():
    one = Moments(2)
    one.add(np.ones((1, 2)))
    with pytest.raises(AssertionError):
        _ = one.covariance


def net(model):
    return FeatureNet(
        "mean colour", lambda pixels: pixels.mean((2, 3)), PreprocessConfig(size=64), 3, "none", model.device
    )


def test_distances_say_in_which_net_and_of_how_many():
    squares = table()
    found = distances(squares, squares, net(tiny()), subsets=4)
    assert found["fid"] == pytest.approx(0, abs=1e-6)
    assert (found["n"], found["n_real"], found["kid_subsets"], found["kid_size"]) == (6, 6, 4, 3)
    assert found["features"]["net"] == "mean colour"
    assert found["features"]["dim"] == 3


def test_one_picture_has_no_distance():
    alone = table()
    alone.ids, alone.pictures = alone.ids[:1], alone.pictures[:1]
    with pytest.raises(InputError, match="two pictures at least"):
        distances(alone, table(), net(tiny()))


def test_fidelity_is_the_cosine_with_the_caption_and_the_recall_of_retrieval():
    from vlcli.evaluation.embed import embed_images, embed_texts
    from vlcli.evaluation.tasks import Retrieval
    from vlcli.text.prompts import load_prompts

    model, squares = tiny("global"), table()
    found = fidelity(squares, model, bootstrap=20)
    images, texts = (
        embed_images(model, squares).pooled,
        embed_texts(model, [t[0] for t in squares.texts]).pooled,
    )
    cosines = (images * texts).sum(1).clamp(min=0) * 100
    assert found["clip_score"] == pytest.approx(float(cosines.mean()), abs=1e-4)
    recall = Retrieval(model, squares, load_prompts("none")).metrics(bootstrap=20)
    assert (found["R@1"], found["ci95"]["R@1"]) == (recall["i2t"]["R@1"], recall["ci95"]["i2t"]["R@1"])
    assert found["ci95"]["clip_score"][0] <= found["clip_score"] <= found["ci95"]["clip_score"][1]


@pytest.mark.parametrize("form", [dict, lambda said: json.dumps(said)])
def test_who_made_the_pictures_may_not_judge_them(form):
    models = {"clip": "0123456789abcdef", "decoder": "f" * 16}
    squares = table()
    squares.frame = pl.DataFrame({GENERATED_BY: [form(generated_by(models, seed=0))] * 5 + [None]})
    assert makers(squares) == set(models.values())
    with pytest.raises(
        UsageError, match="0123456789abcdef took part in generating these pictures; judge them"
    ):
        fidelity(squares, tiny("global"), bootstrap=0)


def test_names_that_are_no_net_are_said(tmp_path):
    with pytest.raises(UsageError, match="no run, checkpoint, file of weights or package:NAME"):
        open_features(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no known package"):
        open_features("package:nonsense")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: these are not the weights of an Inception v3"):
        open_features(str(tmp_path / "other.pth"), device="cpu")


@pytest.mark.parametrize("of", ["pytorch-fid", "torchvision"])
def test_inception_is_the_net_of_its_file(tmp_path, of):
    """On small pictures, by random weights: the vector before the classes."""
    from pytorch_fid import inception as original
    from torchvision.models.inception import Inception3

    torch.manual_seed(0)
    classes = 1008 if of == "pytorch-fid" else 1000
    net = Inception3(
        classes, aux_logits=of == "torchvision", transform_input=False, init_weights=False
    ).eval()
    torch.save(net.state_dict(), tmp_path / "inception.pth")
    if of == "pytorch-fid":
        blocks = {"Mixed_7b": original.FIDInceptionE_1(1280), "Mixed_7c": original.FIDInceptionE_2(2048)}
        for name, width, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
            blocks[f"Mixed_{name}"] = original.FIDInceptionA(width, pooled)
        for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            blocks[f"Mixed_{name}"] = original.FIDInceptionC(768, inner)
        for name, block in blocks.items():
            block.load_state_dict(getattr(net, name).state_dict())
            setattr(net, name, block.eval())
    net.fc = torch.nn.Identity()
    read, name = inception.read_inception(tmp_path / "inception.pth")
    pixels = torch.randn(2, 3, 107, 139)
    with torch.no_grad():
        expected, found = net.eval()(pixels), read.eval()(pixels)
    assert found.shape == (2, inception.DIM)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert name == ("inception-v3-fid" if of == "pytorch-fid" else "inception-v3-torchvision")
