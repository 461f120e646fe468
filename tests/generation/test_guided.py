"""Pictures by a guided diffusion model: against a loop of our own, and what they do and do not depend on."""

import json

import numpy as np
import pytest
import torch
from diffusion_cases import encoder, save_diffusion, save_encoder
from PIL import Image

from vlcli.cli import app
from vlcli.errors import UsageError
from vlcli.generation.guided import Guided
from vlcli.models.checkpoint import save_checkpoint
from vlcli.models.conditioner import Conditioner
from vlcli.models.diffusion_directory import open_diffusion
from vlcli.models.key_values import new_key_values

CPU = torch.device("cpu")
NINE = {
    "en": "red apple",
    "zh": "红苹果",
    "es": "manzana roja",
    "fr": "pomme rouge",
    "ru": "красное яблоко",
    "ar": "تفاحة حمراء",
    "ja": "赤いりんご",
    "ko": "빨간 사과",
    "it": "mela rossa",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A diffusion model, an encoder, and keys and values that are not the model's own."""
    folder = tmp_path_factory.mktemp("guided")
    save_diffusion(folder / "sd")
    save_encoder(folder / "encoder")
    save_encoder(folder / "other", seed=1)
    model = new_key_values(open_diffusion(folder / "sd"), Conditioner(encoder()))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter)
    save_checkpoint(model, folder / "kv", recipe={}, lineage={})
    return folder


def guided(place, kv="kv", model="sd"):
    return Guided(open_diffusion(place / model), encoder(), str(place / kv) if kv else None, CPU)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
@torch.no_grad()
def test_the_pipeline_is_a_loop_over_unet_and_scheduler(tmp_path, scheduler):
    save_diffusion(tmp_path / "sd", scheduler=scheduler)
    found = Guided(open_diffusion(tmp_path / "sd"), encoder(), None, CPU)
    picture = found(["红苹果"], seed=3, steps=4, guidance=5.0)[0]
    model, steps = found.model, found.model.scheduler
    steps.set_timesteps(4)
    x = found.noise(3) * steps.init_noise_sigma
    with_text, without = (found.conditioner.of_texts([text]) for text in ("红苹果", ""))
    for time in steps.timesteps:
        seen = steps.scale_model_input(x, time)
        a, b = (model.unet(seen, time, encoder_hidden_states=s).sample for s in (with_text, without))
        x = steps.step(b + 5.0 * (a - b), time, x).prev_sample
    pixels = model.vae.decode(x / model.vae.config.scaling_factor).sample[0]
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    assert np.abs(np.asarray(picture) - expected).max() <= 1.01


def pixels(pictures):
    return [np.asarray(picture) for picture in pictures]


def test_a_picture_depends_on_seed_and_prompt_and_not_on_the_others(place):
    model = guided(place)
    how = {"seed": 0, "steps": 3, "guidance": 4.0}
    together = pixels(model(["红苹果", "apple", "红苹果"], **how))
    assert np.array_equal(together[0], together[2])
    assert not np.array_equal(together[0], together[1])
    alone = pixels(model(["apple"], **how))[0]
    assert np.abs(alone.astype(int) - together[1]).max() <= 1
    other = pixels(model(["apple"], **how | {"seed": 1}))[0]
    assert not np.array_equal(alone, other)
    assert not np.array_equal(alone, pixels(model(["apple"], **how | {"guidance": 1.0}))[0])


def test_guidance_from_nothing_on(place):
    model = guided(place)
    how = {"seed": 0, "steps": 2}
    nothing = pixels(model(["apple"], **how, guidance=0))[0]
    assert np.array_equal(nothing, pixels(model([""], **how, guidance=1))[0])
    assert not np.array_equal(nothing, pixels(model(["apple"], **how, guidance=1))[0])
    with pytest.raises(UsageError, match="takes 0, or 1 and more"):
        model(["apple"], **how, guidance=0.5)


def test_keys_and_values_take_the_place_of_the_unets_own(place):
    how = {"seed": 0, "steps": 3, "guidance": 4.0}
    with_kv, without = guided(place), guided(place, kv=None)
    assert not np.array_equal(*(pixels(one(["apple"], **how))[0] for one in (with_kv, without)))
    assert set(with_kv.models) - set(without.models) == {"kv"}


def test_the_encoder_is_the_one_of_training(place):
    with pytest.raises(UsageError, match="was trained with the text encoder"):
        Guided(open_diffusion(place / "sd"), encoder(seed=1), str(place / "kv"), CPU)


def test_steps_that_a_scheduler_cannot_take(place):
    model = guided(place)
    with pytest.raises(UsageError, match="--steps 1001: the model was trained with 1000"):
        model(["apple"], seed=0, steps=1001, guidance=1.0)
    model.model.scheduler.register_to_config(skip_prk_steps=False)  # Runge-Kutta first: four steps
    with pytest.raises(UsageError, match="--steps 3: too few for the model's PNDMScheduler"):
        model(["apple"], seed=0, steps=3, guidance=1.0)


def vlcli(*arguments):
    return app([str(one) for one in arguments], prog_name="vlcli", standalone_mode=False) or 0


def draw(place, out, *arguments):
    common = ["--kv", place / "kv", "--encoder", place / "encoder", "--steps", 2, "--device", "cpu"]
    return vlcli("generate", place / "sd", *common, "-o", out, *arguments)


def test_nine_languages_are_pairs_and_a_grid(place, tmp_path, capsys):
    texts = [part for lang, text in NINE.items() for part in ("--text", f"{lang}={text}")]
    assert draw(place, tmp_path / "a", *texts) == 0
    rows = [json.loads(line) for line in (tmp_path / "a" / "pairs.jsonl").read_text().splitlines()]
    assert {row["lang"]: row["text"] for row in rows} == NINE
    origin = rows[0]["generated_by"]
    assert set(origin["models"]) == {"unet", "vae", "kv", "encoder"}
    assert (origin["seed"], origin["steps"], origin["guidance"]) == (0, 2, 7.5)
    with Image.open(tmp_path / "a" / rows[1]["image"]) as picture:
        assert picture.info["prompt"] == NINE["zh"]
        assert picture.info["encoder"] == origin["models"]["encoder"]
        assert picture.info["seed"] == "0"
    assert (tmp_path / "a" / "grid.svg").read_bytes().startswith(b"<?xml")
    assert "longer" not in capsys.readouterr().err
    file = tmp_path / "nine.json"
    file.write_text(json.dumps(NINE, ensure_ascii=False), encoding="utf-8")
    assert draw(place, tmp_path / "b", "--texts", file) == 0
    for name in ("grid.png", "grid.svg", "pairs.jsonl", "000005.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_rows_by_language(place, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"id": "x", "name_en": "fox", "name_zh": "狐狸"}) + "\n", encoding="utf-8")
    assert draw(place, tmp_path / "out", file, "--langs", "en,zh", "--map", "text=name_{lang}", "-q") == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert [(row["id"], row["lang"], row["text"]) for row in rows] == [
        ("x/en", "en", "fox"),
        ("x/zh", "zh", "狐狸"),
    ]


def test_a_prompt_that_is_too_long_is_said(place, tmp_path, capsys):
    assert draw(place, tmp_path / "out", "--text", "zh=" + "红" * 30) == 0
    assert (
        "1 prompts are longer than the 20 tokens that are read, and were cut: zh" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no prompts"),
        (["--text", "a", "rows.jsonl"], "prompts from --text and rows"),
        (["--text", "a", "--caption"], "--caption is not for a diffusion model"),
        (["--text", "a", "--langs", "en"], "--langs goes with rows"),
        (["--text", "zh=\U000f1234"], "no glyph for"),
    ],
)
def test_what_is_refused_before_anything_is_drawn(place, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(place, tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_another_encoder_is_refused_and_so_is_none(place, tmp_path):
    with pytest.raises(UsageError, match="was trained with the text encoder"):
        draw(place, tmp_path / "out", "--text", "a", "--encoder", place / "other")
    with pytest.raises(UsageError, match="name a run or a checkpoint with --encoder"):
        vlcli("generate", place / "sd", "--text", "a", "-o", tmp_path / "out")
    with pytest.raises(UsageError, match="--kv is not for this checkpoint"):
        vlcli("generate", place / "kv", "--kv", place / "kv", "-o", tmp_path / "out")
