"""Costs told from shapes: against torch's counter, against formulas, against a graph that was really made."""

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model
from torch.utils.flop_counter import FlopCounterMode

from vlcli.errors import UsageError
from vlcli.models.config import DualEncoderConfig, ImageTowerConfig, TextTowerConfig
from vlcli.models.cost import _Kept, cost, on_meta
from vlcli.models.flops import FlopCounter
from vlcli.models.image_tower import TimmTower
from vlcli.models.text_tower import text_tower

SIZE = 64
IMAGES = {
    "vit": {
        "name": "vit_base_patch16_clip_quickgelu_224",
        "arguments": {"embed_dim": 64, "depth": 2, "num_heads": 2},
    },
    "swin": {
        "name": "swin_tiny_patch4_window7_224",
        "arguments": {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4},
    },
    "efficientnet": {"name": "efficientnet_lite0"},
}


def image_tower(kind):
    return TimmTower(ImageTowerConfig.model_validate({**IMAGES[kind], "preprocess": {"size": SIZE}}))


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_image_towers_against_torchs_counter(kind):
    with torch.device("meta"):
        tower, pixels = image_tower(kind), torch.randn(2, 3, SIZE, SIZE)
    with FlopCounterMode(display=False) as theirs, FlopCounter() as ours:
        out = tower(pixels).pooled
        forward = theirs.get_total_flops()
        out.sum().backward()
    assert ours.forward == forward > 0
    if kind != "efficientnet":  # of grouped convolutions torch's counter is wrong
        backward = theirs.get_total_flops() - forward
        # it has attention's gradient without the scores that real kernels compute again
        assert backward <= ours.backward < 1.02 * backward
    stem = next(m for m in tower.modules() if isinstance(m, torch.nn.Conv2d))  # pixels have no gradient
    grid = SIZE // stem.stride[0]
    assert ours.backward >= 2 * ours.forward - 2 * 2 * grid * grid * stem.weight.numel()


def test_a_processor_counts_as_the_meta_device_does():
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device), FlopCounter() as count:
            image_tower("vit")(torch.randn(2, 3, SIZE, SIZE))
        found.append((count.forward, count.backward))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["causal", "transformers"])
def test_text_towers_against_torchs_counter_and_by_formula(kind):
    """A layer has 12 d² weights in products and 2 n d of scores for each token: 2 · (12 d² + 2 n d) operations."""
    settings = {"layers": 4, "width": 256, "heads": 4, "vocabulary": 100, "context": 20}
    name = {"name": "bert-mini"} if kind == "transformers" else {}
    with torch.device("meta"):
        tower = text_tower(TextTowerConfig.model_validate({"kind": kind, **name, **settings}))
        ids = torch.zeros(3, 20, dtype=torch.long)
    with FlopCounterMode(display=False) as theirs, FlopCounter() as ours:
        hidden = tower(ids)
    assert ours.forward == theirs.get_total_flops()
    assert ours.forward == 3 * 20 * 4 * 2 * (12 * 256**2 + 2 * 20 * 256)
    assert hidden.shape == (3, 20, 256)
    # first: no gradient goes on to the embeddings' input, which are ids
    assert ours.backward == pytest.approx(2 * ours.forward, rel=0.02)


def test_locked_parts_have_no_backward_pass():
    config = {"image": {"preprocess": {"size": 224}}, "text": {"width": 64, "layers": 2, "heads": 2}}
    free = cost(on_meta(DualEncoderConfig.model_validate({**config, "image": {"locked": False}})), batch=8)
    locked = cost(on_meta(DualEncoderConfig.model_validate(config)), batch=8)
    assert locked.image_flops == free.image_flops
    # a locked tower passes no gradient on, so that its projection has that of its weights alone
    projection = 2 * 49 * 768 * 256
    assert locked.training_flops - locked.image_flops - projection == pytest.approx(
        3 * locked.text_flops, rel=0.05
    )
    assert free.training_flops == pytest.approx(3 * (free.image_flops + free.text_flops), rel=0.05)
    assert locked.activations < free.activations / 5
    assert locked.trainable == locked.parameters - locked.parts["image"]["parameters"]
    assert locked.state == 4 * (locked.parameters + 3 * locked.trainable)


@pytest.mark.parametrize(
    ("similarity", "compared", "words"), [("global", 1, 1), ("tokenwise", 49, 32), ("reduced", 12, 32)]
)
def test_what_a_comparison_costs(similarity, compared, words):
    config = {"similarity": similarity, "text": {"width": 64, "layers": 1, "heads": 2}}
    found = cost(on_meta(DualEncoderConfig.model_validate(config)), batch=100)
    assert (found.tokens, found.compared, found.context) == (49, compared, 32)
    assert found.similarity_flops == 2 * compared * words * 256 * 100


def test_what_is_kept_is_what_a_real_graph_keeps():
    """The same count on a model with memory, and the storages that its graph holds, collected by hand."""
    model = tiny_model(
        "tokenwise", image={"name": "efficientnet_lite0", "locked": False, "preprocess": {"size": 64}}
    )
    ids = torch.zeros(2, 32, dtype=torch.long)
    pixels = torch.zeros(2, 3, 64, 64)
    with _Kept(model) as nothing:
        assert nothing is None
    held = {}
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        image = model.project_image(model.image_features(pixels))
        text = model.project_text(model.text(ids))
    real = sum(storage.nbytes() for storage in held.values())
    assert image.tokens is not None
    assert text.requires_grad
    found = cost(on_meta(model.config), batch=2).activations * 2
    # kernels of this processor keep a little of their own
    assert found == pytest.approx(real, rel=0.05)
    assert cost(on_meta(model.config), batch=2, precision="bf16").activations == found // 4


def test_an_architecture_that_cannot_be():
    projection = {"image_projection": {"kind": "none"}}
    with pytest.raises(
        UsageError, match='image_projection = "none": the tower is 768 wide, the joint space 256'
    ):
        on_meta(DualEncoderConfig.model_validate(projection))
