"""Text towers from directories, files and checkpoints; what is missing is said before anything is built."""

import pytest
import torch
from safetensors.torch import save_file
from test_encoder_tower import model_of, originals
from tiny_models_for_checkpoints import tiny_model

from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.config import ImageTowerConfig, TextTowerConfig
from vlcli.models.dual import DualEncoder
from vlcli.models.initial import find_weights, tokenizer_for
from vlcli.models.initial_text import load_text_tower
from vlcli.models.initialise import initialise
from vlcli.models.text_tower import text_tower
from vlcli.text.model_tokenizers import Pipeline
from vlcli.text.wordpiece import WordPiece


def encoder(kind="bert"):
    return text_tower(TextTowerConfig(kind="transformers", encoder=originals()[kind][1].to_dict()))


def same(tower, theirs):
    known = theirs.state_dict()
    return all(torch.equal(x, known[name]) for name, x in tower.body.state_dict().items())


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "roberta"])
@pytest.mark.parametrize("form", ["bare", "sharded", "pickled"])
def test_a_directory_of_transformers(tmp_path, kind, form):
    model, config = originals()[kind]
    theirs = model(config)  # with a pooler, which stays behind
    if form == "pickled":
        tmp_path.joinpath("m").mkdir()
        torch.save(theirs.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    else:
        theirs.save_pretrained(tmp_path / "m", max_shard_size="20KB" if form == "sharded" else "1GB")
    tower = encoder(kind)
    assert not same(tower, theirs)
    load_text_tower(tower, find_weights(TextTowerConfig(), str(tmp_path / "m")), "it")
    assert same(tower, theirs)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_model_for_masked_words_leaves_its_head_behind(tmp_path, kind):
    from transformers import BertForMaskedLM, XLMRobertaForMaskedLM

    torch.manual_seed(1)
    theirs = {"bert": BertForMaskedLM, "xlm-roberta": XLMRobertaForMaskedLM}[kind](originals()[kind][1])
    theirs.save_pretrained(tmp_path)
    tower = encoder(kind)
    load_text_tower(tower, tmp_path, "it")
    assert same(tower, theirs.base_model)


def test_old_names_of_layer_norms(tmp_path):
    model, config = originals()["bert"]
    theirs = model(config)
    with torch.no_grad():
        theirs.embeddings.LayerNorm.bias.normal_()
    state = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
        for name, x in theirs.state_dict().items()
    }
    torch.save({**state, "cls.seq_relationship.bias": torch.zeros(2)}, tmp_path / "old.bin")
    tower = encoder()
    load_text_tower(tower, tmp_path / "old.bin", "it")
    assert same(tower, theirs)


def test_weights_of_another_encoder(tmp_path):
    originals()["bert"][0](originals()["bert"][1]).save_pretrained(tmp_path / "m")
    smaller = TextTowerConfig(
        kind="transformers", encoder={**originals()["bert"][1].to_dict(), "num_hidden_layers": 1}
    )
    with pytest.raises(InputError, match=r"does not fit bert-of-one: 0 tensors missing, 16 without a place"):
        load_text_tower(text_tower(smaller), tmp_path / "m", "bert-of-one")
    narrower = TextTowerConfig(
        kind="transformers", encoder={**originals()["bert"][1].to_dict(), "vocab_size": 99}
    )
    with pytest.raises(
        InputError, match=r"word_embeddings\.weight has shape \(120, 32\), the tower's is \(99, 32\)"
    ):
        load_text_tower(text_tower(narrower), tmp_path / "m", "it")
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(
        InputError, match=r"no encoder: 0 tensors are called embeddings\.word_embeddings\.weight"
    ):
        load_text_tower(encoder(), tmp_path / "a.safetensors", "it")
    with pytest.raises(InputError, match=r"does not fit it: \d+ tensors missing, 1 without a place"):
        load_text_tower(
            text_tower(TextTowerConfig(width=32, layers=1, heads=2)), tmp_path / "a.safetensors", "it"
        )


def test_a_checkpoint_of_ours_gives_tower_head_and_projection(tmp_path):
    theirs = model_of("xlm-roberta", head={"width": 24})
    save_checkpoint(theirs, tmp_path / "c", recipe={}, lineage={})
    ours = theirs.config.model_copy(
        update={
            "text_projection": theirs.config.text_projection.model_copy(update={"init": "tower"}),
            "image_projection": theirs.config.image_projection.model_copy(update={"init": "tower"}),
        }
    )
    torch.manual_seed(5)
    model = DualEncoder(ours, theirs.tokenizer)
    before = model.log_scale.clone()
    initialise(model, tmp_path / "c", tmp_path / "c")
    wanted = theirs.state_dict()
    assert {name for name, x in model.state_dict().items() if not torch.equal(x, wanted[name])} <= {
        "log_scale"
    }
    assert torch.equal(model.log_scale, before)
    causal = tiny_model()
    save_checkpoint(causal, tmp_path / "d", recipe={}, lineage={})
    model = tiny_model()
    initialise(model, None, tmp_path / "d")
    assert torch.equal(model.text.blocks[0].fc.weight, causal.text.blocks[0].fc.weight)
    # a projection is trained anew unless it was asked for
    assert not torch.equal(model.text_projection.weight, causal.text_projection.weight)


def test_openais_projection_comes_along_where_it_is_asked_for(tmp_path):
    import open_clip

    vision = open_clip.model.VisionTransformer(
        image_size=32, patch_size=16, width=64, layers=2, heads=2, mlp_ratio=4.0, output_dim=24,
        act_layer=open_clip.transformer.QuickGELU,
    )  # fmt: skip
    torch.save({f"visual.{name}": x for name, x in vision.state_dict().items()}, tmp_path / "clip.pt")
    image = {
        "name": "vit_base_patch16_clip_quickgelu_224",
        "arguments": {"embed_dim": 64, "depth": 2, "num_heads": 2},
        "preprocess": {"size": 32},
    }
    projection = {"init": "tower"}
    model = tiny_model("global", dim=24, image=image, image_projection=projection)
    initialise(model, tmp_path / "clip.pt", None)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want = torch.nn.functional.normalize(vision.eval()(pixels), dim=-1)
        torch.testing.assert_close(model.eval().encode_image(pixels).pooled, want, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"does not fit image_projection: it has \{'weight': \(24, 64\)\}"):
        initialise(tiny_model("global", image=image, image_projection=projection), tmp_path / "clip.pt", None)
    save_file(model.image.body.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(
        InputError, match=r"no image projection beside the tower.*image_projection\.init=random"
    ):
        initialise(model, tmp_path / "bare.safetensors", None)


def test_missing_weights_are_named_with_page_and_option(tmp_path):
    config = TextTowerConfig(
        kind="transformers", name="bert-mini", init="BERT-Mini", init_page="https://example.org/b"
    )
    with pytest.raises(UsageError) as refused:
        find_weights(config)
    assert str(refused.value) == (
        "the text tower bert-mini starts from BERT-Mini (https://example.org/b), which is not here;"
        " pass --init text=PATH, or --init text=random to start from nothing"
    )
    assert find_weights(config, "random") is None
    assert find_weights(TextTowerConfig()) is None
    with pytest.raises(UsageError, match="--init text=gone: no such file or directory"):
        find_weights(config, "gone")
    with pytest.raises(
        UsageError, match=r"no weights in this directory; it may hold one of model\.safetensors"
    ):
        find_weights(config, str(tmp_path))
    with pytest.raises(UsageError, match="no known package of text weights is called 'x'"):
        find_weights(config, "package:x")
    with pytest.raises(UsageError, match="no known package of image weights is called 'x'"):
        find_weights(ImageTowerConfig(init="package:x"))


def test_the_tokenizer_beside_the_weights(tmp_path):
    config = TextTowerConfig(tokenizer="init")
    with pytest.raises(UsageError, match="pass --init text=DIR"):
        tokenizer_for(config, None)
    WordPiece.load().save(tmp_path / "bert")
    save_file({"a": torch.zeros(2)}, tmp_path / "bert" / "model.safetensors")
    assert isinstance(tokenizer_for(config, tmp_path / "bert"), WordPiece)
    assert isinstance(tokenizer_for(config, tmp_path / "bert" / "model.safetensors"), WordPiece)
    clip = tiny_model(
        text={"width": 32, "layers": 1, "heads": 2, "tokenizer": "clip-bpe", "vocabulary": 49408}
    )
    save_checkpoint(clip, tmp_path / "c", recipe={}, lineage={})
    found = tokenizer_for(TextTowerConfig(tokenizer="init", padding_id=0), tmp_path / "c")
    assert isinstance(found, Pipeline)
    assert found.encode(["a dog"], 9)[0].tolist() == clip.tokenizer.encode(["a dog"], 9)[0].tolist()


def test_an_index_that_is_none(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="not a JSON object"):
        load_text_tower(encoder(), tmp_path, "it")


def test_a_shard_outside_the_directory_is_not_read(tmp_path):
    (tmp_path / "m").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "outside.safetensors")
    index = tmp_path / "m" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../outside.safetensors"}}')
    with pytest.raises(InputError, match="which is not beside it"):
        load_text_tower(encoder(), tmp_path / "m", "it")
