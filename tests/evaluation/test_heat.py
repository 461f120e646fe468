"""Heat maps of each kind of similarity against the sums that define them."""

import pytest
import torch
from tiny_models import tiny
from torch.nn import functional as F

from vlcli.evaluation.alignment import align, encode_label, encode_patches
from vlcli.evaluation.heat import heat, patch_features


@pytest.fixture
def pixels():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_a_tokenwise_map_is_the_alignments(pixels):
    model = tiny()
    text = encode_label(model, "红色")
    patches, grid = encode_patches(model, pixels)
    found = heat(patch_features(model, pixels), 1, text)
    assert found == pytest.approx(align(patches[1], text, grid).similarity)


def test_a_global_map_projects_each_patch_as_the_pooled_vector(pixels):
    model = tiny("global", tower="test_efficientnet")
    text = encode_label(model, "红色")
    assert text.vectors.shape == (1, 16)
    with torch.no_grad():
        features = model.image_features(pixels)
        want = model.encode_text(*model.tokenize(["红色"])).pooled[0]
        # This projection is linear and this tower pools by the mean: the patches add up to the image's own score.
        image = model.encode_image(pixels).pooled
        lengths = model.image_projection(features.tokens).norm(dim=-1)
        pooled = model.image_projection(features.pooled)
    found = torch.tensor(heat(patch_features(model, pixels), 0, text)).flatten()
    total = (found * lengths[0]).mean() / pooled[0].norm()
    torch.testing.assert_close(total, image[0] @ want)


@pytest.mark.parametrize("kind", ["released", "paper"])
def test_a_reduced_map_adds_up_to_the_text_to_image_score(pixels, kind):
    model = tiny("reduced", reduction=kind)
    text = encode_label(model, "红")  # one word, so that the mean over words is one chosen token's
    features = patch_features(model, pixels)
    with torch.no_grad():
        score = model.similarity(model.encode_image(pixels), model.encode_text(*model.tokenize(["红"]))).t2i
        tokens = model.reduce(model.image_features(pixels)).tokens
    for row in range(2):
        chosen = (F.normalize(tokens[row], dim=-1) @ text.vectors[text.positions[0]]).argmax()
        total = heat(features, row, text).sum() / tokens[row, chosen].norm()
        assert total.item() == pytest.approx(score[row, 0].item(), abs=1e-5)


def test_a_patch_that_no_map_looks_at_is_cold(pixels):
    model = tiny("reduced")
    features = patch_features(model, pixels)
    features.maps[:, :, 0] = 0
    assert heat(features, 0, encode_label(model, "红色")).flatten()[0] == 0
