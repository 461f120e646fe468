"""Runs with other towers: a BERT from a directory, rates by pattern, locked layers."""

import pytest
import torch
from training_cases import Silent, pairs, recipe

import vlcli
from vlcli.errors import UsageError
from vlcli.text.wordpiece import WordPiece
from vlcli.training.pretraining import Pretraining

BERT = {
    "vocab_size": 21128,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A directory as transformers saves a BERT with its tokenizer."""
    from transformers import BertConfig, BertModel

    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(3)
    model = BertModel(BertConfig(**BERT))
    model.save_pretrained(place)
    WordPiece.load().save(place)
    return model, place


def test_a_bert_from_a_directory_learns_at_its_own_rates(bert, tmp_path):
    theirs, place = bert
    rules = (
        '[{pattern = "text[.]body[.]embeddings[.].*", rate = "locked"}, {pattern = "text[.].*", rate = 0.1},'
        ' {pattern = "image[.].*", rate = "locked"}, {pattern = ".*", rate = 1.0}]'
    )
    settings = recipe(
        tmp_path,
        "model.text.kind=transformers",
        f"model.text.name={place}",
        "model.text.layers=2",
        "model.text.tokenizer=init",
        "model.text.pooling=cls",
        "model.similarity=global",
        "model.image.locked=false",
        f"model.train={rules}",
        "schedule.steps=3",
        "schedule.warmup_steps=0",
        "data.workers=0",
        "train.save_every=2",
    )
    run = Pretraining(settings, pairs(), tmp_path / "run", Silent(), device="cpu", init_text=str(place))
    assert run.store is not None  # the image tower is wholly locked, by a pattern
    start = {name: x.clone() for name, x in run.model.text.body.state_dict().items()}
    assert all(torch.equal(x, theirs.state_dict()[name]) for name, x in start.items())
    run.run()
    lengths = {group["lr"] / group["rate"] for group in run.engine.optimizer.param_groups}
    assert {group["rate"] for group in run.engine.optimizer.param_groups} == {1.0, 0.1}
    assert len(lengths) == 1  # one schedule behind both
    after = run.model.text.body.state_dict()
    moved = {name for name, x in after.items() if not torch.equal(x, start[name])}
    assert moved
    assert all(name.startswith("encoder.") for name in moved)
    again = vlcli.load(tmp_path / "run" / "last")
    assert all(torch.equal(x, after[name]) for name, x in again.text.body.state_dict().items())

    part = Pretraining(settings, pairs(), tmp_path / "run", Silent(), device="cpu", resume=True)
    assert part.engine.step == 3
    assert {group["rate"] for group in part.engine.optimizer.param_groups} == {1.0, 0.1}


def test_a_tower_that_learns_in_part_is_not_cached(tmp_path):
    """Features of a tower whose last layers move would be of yesterday."""
    settings = recipe(tmp_path, "model.image.unlocked_from=12", "schedule.steps=1", "data.workers=0")
    run = Pretraining(settings, pairs(), tmp_path / "run", Silent(), device="cpu")
    assert run.store is None
    before = {name: x.clone() for name, x in run.model.image.state_dict().items()}
    run.run()
    moved = [n for n, x in run.model.image.state_dict().items() if not torch.equal(x, before[n])]
    assert any(name.endswith("conv_head.weight") for name in moved)
    assert not any("conv_stem" in name or "blocks.0." in name for name in moved)


def test_a_missing_tokenizer_is_said_before_anything_is_made(tmp_path):
    settings = recipe(tmp_path, "model.text.tokenizer=nowhere")
    with pytest.raises(UsageError, match=r"text\.tokenizer nowhere: no such tokenizer"):
        Pretraining(settings, pairs(), tmp_path / "run", Silent(), device="cpu")
    assert not (tmp_path / "run").exists()
