"""What is saved is what is loaded; damage and strangers get one clear line."""

import json
import os
import pickle

import pytest
import torch
from tiny_models_for_checkpoints import tiny_model

import vlcli
from vlcli.errors import InputError, UsageError
from vlcli.models.checkpoint import checkpoint_hash, save_checkpoint
from vlcli.models.initial import read_tensors


@pytest.fixture
def saved(tmp_path):
    model = tiny_model()
    save_checkpoint(model, tmp_path / "c", recipe={"name": "test"}, lineage={})
    return model, tmp_path / "c"


def test_round_trip_gives_the_same_numbers(saved):
    model, place = saved
    again = vlcli.load(place)
    assert not again.training
    ids, mask = model.tokenize(["狐狸", "一只猫"])
    pixels = torch.randn(2, 3, 32, 32)
    model.eval()
    with torch.no_grad():
        a = model.similarity(model.encode_image(pixels), model.encode_text(ids, mask))
        b = again.similarity(again.encode_image(pixels), again.encode_text(ids, mask))
    assert torch.equal(a.i2t, b.i2t)
    assert torch.equal(a.t2i, b.t2i)
    assert again.checkpoint_hash == checkpoint_hash(place)
    assert len(again.checkpoint_hash) == 16


def test_the_hash_follows_the_weights(saved, tmp_path):
    model, place = saved
    with torch.no_grad():
        model.log_scale += 0.1
    save_checkpoint(model, tmp_path / "d", recipe={}, lineage={})
    assert checkpoint_hash(tmp_path / "d") != checkpoint_hash(place)


def test_damaged_weights(saved):
    _, place = saved
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot read the weights"):
        vlcli.load(place)


def test_weights_of_another_architecture(saved):
    _, place = saved
    config = json.loads((place / "config.json").read_text())
    config["architecture"]["dim"] = 24
    (place / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"does not fit the architecture: tensor image_projection\.weight has shape"
    ):
        vlcli.load(place)


def test_wrong_kind_and_wrong_places(saved, tmp_path):
    _, place = saved
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "kind": "text"}))
    with pytest.raises(UsageError, match="kind 'text'"):
        vlcli.load(place)
    with pytest.raises(UsageError, match="no such checkpoint"):
        vlcli.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="neither a checkpoint"):
        vlcli.load(tmp_path / "empty")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'owned')!r}, 'w')",))

    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(InputError, match="nothing of it is run"):
        read_tensors(file)
    torch.save({"a": Evil()}, file)
    with pytest.raises(InputError, match="nothing of it is run"):
        read_tensors(file)
    assert not (tmp_path / "owned").exists()


def test_the_umask_decides_who_reads_a_checkpoint(tmp_path):
    before = os.umask(0o027)
    try:
        save_checkpoint(tiny_model(), tmp_path / "c", recipe={}, lineage={})
    finally:
        os.umask(before)
    assert {
        file.name: oct(file.stat().st_mode & 0o777) for file in (tmp_path / "c").iterdir()
    } == dict.fromkeys((file.name for file in (tmp_path / "c").iterdir()), "0o640")
