"""What is damaged, strange or hostile: one line, its exit code, nothing run, nothing written."""

from __future__ import annotations

import copyreg
import io
import json
import os
import pickle
import sys
import traceback
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import (
    hf_altclip,
    hf_clip,
    open_clip_directory,
    openai_clip,
    openai_state,
    prd2,
    read_json,
    small_open_clip,
    timm_tower,
    torchscript,
    wukong,
)
from safetensors.torch import load_file, save_file

import vlcli
from vlcli.cli import app
from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.models.adapters.format import Asked, CannotExpress, Checkpoint
from vlcli.models.adapters.names import UnplacedError
from vlcli.models.adapters.registry import FORMATS
from vlcli.models.convert import Card, express, open_checkpoint, write, write_onnx
from vlcli.models.image_tower import TimmTower
from vlcli.models.initial_image import load_image_tower


def said_by(*arguments) -> tuple[int, str]:
    """(exit code, line) of a command, as cli.main would tell them."""
    try:
        app([str(argument) for argument in arguments], prog_name="vlcli", standalone_mode=False)
    except VlcliError as error:
        return error.exit_code, str(error)
    return 0, ""


@pytest.fixture
def convert(tmp_path):
    """`vlcli convert PATH -o out` → (exit code, line); nothing is written unless the code is 0."""

    def run(path, *options):
        before = sorted(file.name for file in tmp_path.iterdir())
        found = said_by("convert", path, "-o", tmp_path / "out", *options)
        assert "\n" not in found[1]
        if found[0]:
            assert sorted(file.name for file in tmp_path.iterdir()) == before
        return found

    return run


# --- pickles -----------------------------------------------------------------------------------------------


class Trap:
    """A pickle of it makes a file when it is run."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "made")))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_a_function_is_not_run(protocol, tmp_path, convert):
    made = tmp_path / "made"
    arrays = {"visual.proj": np.ones((2, 2), np.float32), "trap": Trap(made)}
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(arrays, protocol))
    if protocol < 2:  # no mark at its beginning says that it is one
        assert convert(tmp_path / "weights.pkl")[0] == 3
    else:
        code, said = convert(tmp_path / "weights.pkl")
        assert code == 3
        assert "its pickle names posix.system" in said
    assert not made.exists()


def test_a_torch_file_that_calls_a_function_is_not_run(tmp_path, convert):
    made = tmp_path / "made"
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save({"trap": Trap(made)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        code, said = convert(tmp_path / name)
        assert code == 3
        assert "names posix.system" in said
    assert not made.exists()


def test_a_torchscript_archive_that_calls_a_function_is_not_run(tmp_path, convert):
    made = tmp_path / "made"
    with (
        zipfile.ZipFile(torchscript(tmp_path).path) as whole,
        zipfile.ZipFile(tmp_path / "bad.pt", "w") as bad,
    ):
        for name in whole.namelist():
            trap = pickle.dumps(Trap(made), 2)
            bad.writestr(name, trap if name.endswith("/data.pkl") else whole.read(name))
    code, said = convert(tmp_path / "bad.pt")
    assert code == 3
    assert "names posix.system" in said
    assert not made.exists()


def pickled(found, protocol: int, core: str, monkeypatch) -> bytes:
    """As a numpy writes it whose core is called `core`."""
    named = pickle.whichmodule
    monkeypatch.setattr(pickle, "whichmodule", lambda *of: named(*of).replace("numpy._core", core))
    out = io.BytesIO()
    pickle._Pickler(out, protocol).dump(found)  # type: ignore[attr-defined]
    return out.getvalue()


@pytest.mark.filterwarnings("ignore:numpy.core")
@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_of_either_numpy_are_read(protocol, core, tmp_path, monkeypatch):
    """MindSpore's downloads of Wukong: pickled arrays, named by the numpy that wrote them."""
    state = {name: x.numpy() for name, x in wukong(tmp_path, "reduced").tensors.items()}
    state["visual.proj"] = np.asfortranarray(state["visual.proj"])
    state["loss.logit_scale"] = state["loss.logit_scale"].astype(">f4")[()]
    raw = pickled(state, protocol, core, monkeypatch)
    other = {"numpy.core": b"numpy._core", "numpy._core": b"numpy.core"}[core]
    assert core.encode() in raw
    assert other not in raw
    (tmp_path / "wukong.pkl").write_bytes(raw)
    opened = open_checkpoint(tmp_path / "wukong.pkl")
    assert opened.format == "wukong"
    whole = open_checkpoint(tmp_path / "wukong_reduced.ckpt").checkpoint.state
    assert opened.checkpoint.state.keys() == whole.keys()
    assert all(torch.equal(opened.checkpoint.state[name], x) for name, x in whole.items())


def test_mindspores_own_containers_are_read_by_stand_ins(tmp_path, monkeypatch):
    """Its Parameter pickles as a call with a Tensor, a name and two flags; its Tensor as a state of one array."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def __reduce_ex__(self, protocol):
            return copyreg.__newobj__, (Tensor,), (self.array,)

        def __setstate__(self, state):
            raise AssertionError("MindSpore's code is not run")

    class Parameter(Tensor):
        def __reduce_ex__(self, protocol):
            return Parameter, (Tensor(self.array), "name", True, False)

    for kind in (Tensor, Parameter):
        module = types.ModuleType(f"mindspore.common.{kind.__name__.lower()}")
        setattr(module, kind.__name__, kind)
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("mindspore", "mindspore.common"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    state = {name: Parameter(x.numpy()) for name, x in wukong(tmp_path, "global").tensors.items()}
    (tmp_path / "ms.pkl").write_bytes(pickle.dumps(state, 4))
    found = open_checkpoint(tmp_path / "ms.pkl").checkpoint.state
    whole = open_checkpoint(tmp_path / "wukong_global.ckpt").checkpoint.state
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], x) for name, x in whole.items())


@pytest.mark.parametrize(
    "value",
    [
        np.array([object()], dtype=object),
        np.array(["x"]),
        np.zeros(2, dtype=[("a", "f4")]),
        np.array(1, dtype="M8[s]"),
        3,
        [np.ones(2)],
        {"deep": np.ones(2)},
    ],
)
def test_what_is_no_array_of_numbers_is_named(value, tmp_path, convert):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"good": np.ones(2), "strange": value}, 4))
    code, said = convert(tmp_path / "x.pkl")
    assert code == 3
    assert "strange" in said or "builtins" in said or "datetime" in said or "object" in said


def test_any_prefix_of_a_pickle_is_damaged(tmp_path):
    raw = pickle.dumps({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float16(2)}, 4)
    for end in range(2, len(raw)):
        (tmp_path / "cut.pkl").write_bytes(raw[:end])
        with pytest.raises(InputError):
            open_checkpoint(tmp_path / "cut.pkl")


def test_a_tensor_that_lies_outside_its_record_is_refused(tmp_path):
    """An archive that says more than it holds would read memory that is not its own."""
    whole = torchscript(tmp_path).path
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(tmp_path / "short.pt", "w") as bad:
        for name in archive.namelist():
            data = archive.read(name)
            bad.writestr(name, data[:-4] if name.endswith("/data/3") else data)
    with pytest.raises(InputError, match="record 3 has"):
        open_checkpoint(tmp_path / "short.pt")


# --- damage, ambiguity, contradiction ----------------------------------------------------------------------


def test_truncated_safetensors(tmp_path, convert):
    path = hf_clip(tmp_path).path
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, said = convert(path)
    assert code == 3
    assert "model.safetensors: cannot read the weights" in said


def test_openais_names_without_more_are_ambiguous(tmp_path, convert):
    model, config = small_open_clip(quick=False, heads=2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    code, said = convert(tmp_path / "weights.pt")
    assert code == 2
    assert "--from openai-clip" in said
    assert "--model-config" in said
    (tmp_path / "model.json").write_text(json.dumps(config))
    assert convert(tmp_path / "weights.pt", "--model-config", str(tmp_path / "model.json"))[0] == 0
    assert vlcli.load(tmp_path / "out").config.text.activation == "gelu"
    assert convert(tmp_path / "weights.pt", "--from", "openai-clip", "--force")[0] == 0
    assert vlcli.load(tmp_path / "out").config.text.activation == "quick_gelu"


def test_weights_of_nobody(tmp_path, convert):
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    code, said = convert(tmp_path / "x.safetensors")
    assert code == 3
    assert "no known format has 1 tensor: layer.weight" in said
    (tmp_path / "x.bin").write_text("hello")
    assert convert(tmp_path / "x.bin")[0] == 3
    assert convert(tmp_path / "nowhere")[0] == 2


def change(path: Path, **tensors) -> None:
    """Tensors of a directory's safetensors replaced, or taken out with None."""
    file = path / "model.safetensors"
    state = {k: v.clone() for k, v in load_file(file).items()} | {
        k: v for k, v in tensors.items() if v is not None
    }
    save_file({k: v for k, v in state.items() if tensors.get(k, v) is not None}, file)


def test_tensors_without_a_place_are_all_named_with_debug(tmp_path, convert):
    path = hf_clip(tmp_path).path
    extra = [f"text_model.adapter.{i}" for i in range(5)]
    change(path, **{name: torch.ones(1) for name in extra})
    code, said = convert(path)
    assert code == 3
    assert "hf-clip has no place for 5 tensors: text_model.adapter.0, " in said
    assert "and 2 more" in said
    with pytest.raises(UnplacedError) as caught:
        open_checkpoint(path)
    assert caught.value.names == extra
    assert "\n".join(extra) in "".join(traceback.format_exception(caught.value))  # what --debug prints


def test_missing_tensors_are_named(tmp_path, convert):
    path = hf_clip(tmp_path).path
    change(path, **{"text_model.final_layer_norm.bias": None})
    code, said = convert(path)
    assert code == 3
    assert "text.ln_final.bias" in said
    change(path, **{"vision_model.encoder.layers.1.self_attn.k_proj.weight": None})
    assert "vision_model.encoder.layers.1.self_attn.k_proj.weight" in convert(path)[1]


@pytest.mark.parametrize(
    ("file", "changed", "said"),
    [
        ("config.json", {"model_type": "siglip"}, "says 'siglip', the tensors are of 'clip'"),
        ("config.json", {"vision_config": {"hidden_size": 32}}, "hidden_size = 32, the tensors 64"),
        ("config.json", {"text_config": {"hidden_act": "relu"}}, "activation 'relu' is none of"),
        ("config.json", {"vision_config": {"num_attention_heads": 7}}, "7 heads do not divide"),
        ("config.json", {"text_config": {"eos_token_id": 5}}, "eos_token_id is 5"),
        ("preprocessor_config.json", {"crop_size": 32, "size": 32}, "makes 32 pixels of a side"),
        ("preprocessor_config.json", {"do_rescale": False}, "do_rescale = false"),
        ("preprocessor_config.json", {"resample": 1}, "resample 1"),
    ],
)
def test_a_configuration_that_contradicts_the_weights(file, changed, said, tmp_path, convert):
    path = hf_clip(tmp_path).path
    found = read_json(path / file)
    for key, value in changed.items():
        found[key] = {**found[key], **value} if isinstance(value, dict) else value
    (path / file).write_text(json.dumps(found))
    code, line = convert(path)
    assert code == 3
    assert said in line


def test_a_tokenizer_that_does_not_match_the_embedding_table(tmp_path, convert):
    path = hf_altclip(tmp_path).path
    code, said = convert(path, "--tokenizer", "wordpiece-zh")
    assert code == 3
    assert "the tokenizer has 21,128 tokens, the embedding table 300 rows" in said
    (path / "tokenizer.json").unlink()
    (path / "tokenizer_config.json").unlink()
    code, said = convert(path)
    assert code == 2
    assert "--tokenizer" in said


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [("vision_cfg", "pool_type", "avg"), ("text_cfg", "no_causal_mask", True), ("text_cfg", "new_idea", 1)],
)
def test_a_setting_of_open_clip_that_is_not_known(table, key, value, tmp_path, convert):
    path = open_clip_directory(tmp_path).path
    found = read_json(path / "open_clip_config.json")
    found["model_cfg"][table][key] = value
    (path / "open_clip_config.json").write_text(json.dumps(found))
    code, said = convert(path)
    assert code == 3
    assert f"{table}.{key}" in said


# --- what a format cannot express --------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["tokenwise", "reduced"])
@pytest.mark.parametrize(
    "to", ["hf-clip", "openai-clip", "open_clip", "hf-chinese-clip", "chinese-clip", "r2d2"]
)
def test_token_wise_and_reduced_models_have_no_home_there(similarity, to, tmp_path, convert):
    code, said = convert(wukong(tmp_path, similarity).path, "--to", to)
    assert code == 2
    assert f"{to} cannot express this model: it compares pooled vectors, the model has the similarity" in said


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("openai-clip", "one head to 64 channels"),
        ("wukong", "word pieces"),
        ("hf-altclip", "its text tower is xlm-roberta, the model's is causal"),
        ("r2d2", "linear with a bias"),
    ],
)
def test_the_reason_is_named(to, why, tmp_path, convert):
    code, said = convert(hf_clip(tmp_path).path, "--to", to)
    assert code == 2
    assert why in said


def test_a_global_wukong_goes_to_transformers_and_gives_the_same_numbers(tmp_path):
    """Its last token is the only [SEP] of a text, which is what CLIPModel reads."""
    import transformers

    path = wukong(tmp_path, "global").path
    write(express(open_checkpoint(path), "hf-clip"), tmp_path / "hf")
    theirs = transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval()
    model = vlcli.load(path)
    ids, mask = model.tokenize(["一只狐狸", "狗和猫在雪地里"])
    with torch.no_grad():
        found = model.encode_text(ids, mask).pooled
        wanted = theirs.get_text_features(input_ids=ids, attention_mask=mask.long()).pooler_output
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=-1), rtol=1e-5, atol=1e-5)


# --- R2D2, timm, precision, the command --------------------------------------------------------------------


def test_the_ranking_part_of_r2d2_stays_behind_on_request(tmp_path, convert):
    path = prd2(tmp_path, ranking=True).path
    assert convert(path, "--towers-only")[0] == 0
    assert read_json(tmp_path / "out" / "config.json")["kind"] == "dual"
    kept = open_checkpoint(tmp_path / "out").checkpoint.state
    assert torch.equal(kept["text_projection.weight"], torch.load(path)["model"]["text_proj.weight"])
    assert not any(name.startswith("ranking.") for name in kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("itm_head.weight"), "ranking.text_head.weight"),
        (
            lambda state: state.pop("img_joint_layer.encoder.layer.1.crossattention.self.key.bias"),
            "crossattention.self.value.bias",
        ),
        (lambda state: state.update({"itm_head_m.weight": torch.zeros(2)}), "itm_head_m.weight"),
        (lambda state: state.update({"itm_head.weight": torch.zeros(3, 128)}), "ranking.text_head.weight"),
        (lambda state: state.update({"text_encoder_m.x": torch.zeros(3)}), "text_encoder_m.x"),
    ],
)
def test_no_tensor_of_r2d2_is_dropped_in_silence(tmp_path, convert, change, words):
    path = prd2(tmp_path, ranking=True).path
    held = torch.load(path)
    change(held["model"])
    torch.save(held, path)
    code, said = convert(path)
    assert code == 3
    assert words in said


def test_an_r2d2_goes_to_a_format_of_towers_only_when_asked(tmp_path, convert):
    path = prd2(tmp_path, ranking=True).path
    assert convert(path)[0] == 0
    checkpoint = open_checkpoint(tmp_path / "out").checkpoint
    assert checkpoint.config.kind == "r2d2"
    with pytest.raises(UsageError, match="cannot express"):
        express(open_checkpoint(tmp_path / "out"), "hf-chinese-clip")
    with pytest.raises(UsageError, match="ranking part"):
        write_onnx(open_checkpoint(tmp_path / "out"), tmp_path / "graphs")
    towers = open_checkpoint(tmp_path / "out", Asked(towers_only=True)).checkpoint
    assert towers.config.kind == "dual"
    assert towers.notes
    head = checkpoint.config.model_copy(
        update={"ranking": checkpoint.config.ranking.model_copy(update={"mask_head": True})}
    )
    with pytest.raises(CannotExpress, match="masked words"):
        FORMATS["r2d2"].express(Checkpoint(head, checkpoint.state, checkpoint.tokenizer))


def test_timm_towers_both_ways(tmp_path, convert):
    import timm

    path, model = timm_tower(tmp_path, "test_vit", num_classes=0)
    pixels = torch.randn(2, 3, 160, 160)
    assert convert(path)[0] == 0
    assert read_json(tmp_path / "out" / "config.json")["kind"] == "image"
    write(express(open_checkpoint(tmp_path / "out"), "timm"), tmp_path / "back")
    found = timm.create_model(f"local-dir:{tmp_path / 'back'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(found(pixels), model(pixels))
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(found.state_dict()[k], v) for k, v in model.state_dict().items())


def test_a_tower_starts_from_a_converted_tower(tmp_path, convert):
    path, model = timm_tower(tmp_path, "test_vit", num_classes=0)
    assert convert(path)[0] == 0
    tower = TimmTower(open_checkpoint(path).checkpoint.config)
    load_image_tower(tower, tmp_path / "out")
    assert all(torch.equal(tower.body.state_dict()[k], v) for k, v in model.state_dict().items())


def test_a_classification_head_stays_behind_and_is_named(tmp_path):
    path, _ = timm_tower(tmp_path, "test_vit")
    checkpoint = open_checkpoint(path).checkpoint
    assert any("head.weight" in note for note in checkpoint.notes)
    assert not any(name.startswith("head.") for name in checkpoint.state)


def test_the_image_tower_of_a_dual_encoder_goes_to_timm(tmp_path):
    import timm

    path = openai_clip(tmp_path).path
    write(express(open_checkpoint(path), "timm"), tmp_path / "tower")
    found = timm.create_model(f"local-dir:{tmp_path / 'tower'}", pretrained=True).eval()
    model = vlcli.load(path)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found(pixels), model.image_features(pixels).pooled, rtol=1e-5, atol=1e-5)


def test_half_precision_stays_half_and_runs_whole(tmp_path):
    model, _ = small_open_clip(quick=True)
    state = openai_state(model.half())
    torch.save(state, tmp_path / "half.pt")
    write(express(open_checkpoint(tmp_path / "half.pt"), "vlcli"), tmp_path / "ours", card=Card())
    loaded = vlcli.load(tmp_path / "ours")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    write(express(open_checkpoint(tmp_path / "ours"), "openai-clip"), tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) and back[k].dtype == v.dtype for k, v in state.items())


def test_shards_of_a_directory_are_one_model(tmp_path):
    path = hf_clip(tmp_path).path
    state = load_file(path / "model.safetensors")
    names = sorted(state)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: state[name] for name in part}, path / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    whole = open_checkpoint(path).checkpoint.state
    (path / "model.safetensors").rename(path / "elsewhere")
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = open_checkpoint(path).checkpoint.state
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[k], v) for k, v in whole.items())
    (path / "model-2.safetensors").unlink()
    with pytest.raises(InputError, match="model-2"):
        open_checkpoint(path)


def test_the_command_writes_once_and_says_what(tmp_path, convert, capsys):
    path = openai_clip(tmp_path).path
    assert convert(path)[0] == 0
    assert "openai-clip (" in capsys.readouterr().err
    assert said_by("check", tmp_path / "out", "--deep")[0] == 0
    code, said = convert(path)
    assert code == 2
    assert "--force" in said
    assert convert(path, "--force", "-q") == (0, "")
    assert capsys.readouterr().err == ""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    assert said_by("convert", path, "-o", tmp_path / "notes", "--force")[0] == 2
    assert (tmp_path / "notes" / "mine.txt").exists()


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    path = openai_clip(tmp_path).path
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert said_by("convert", path, "--to", "open_clip", "-n")[0] == 0
    assert "would convert openai-clip" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before
    assert "cannot express" in said_by("convert", path, "--to", "wukong", "-n")[1]


def test_both_generations_of_altclips_names(tmp_path):
    path = hf_altclip(tmp_path).path
    state = load_file(path / "model.safetensors")
    whole = open_checkpoint(path).checkpoint.state
    newer = {name.replace(".encoder.layer.", ".encoder.layers."): x for name, x in state.items()}
    assert newer.keys() != state.keys()
    save_file(newer, path / "model.safetensors")
    found = open_checkpoint(path).checkpoint.state
    assert all(torch.equal(found[k], v) for k, v in whole.items())
    assert found.keys() == whole.keys()


def test_asked_for_similarity(tmp_path):
    path = wukong(tmp_path, "global").path
    opened = open_checkpoint(path, Asked(similarity="tokenwise"))
    assert opened.checkpoint.config.similarity == "tokenwise"
    assert open_checkpoint(path).checkpoint.config.similarity == "global"
