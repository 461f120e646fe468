"""What goes into a model, compared end to end: the same picture file gives the same tensor as the original library's
own preprocessing, the same texts the same ids."""

from __future__ import annotations

import json
from pathlib import Path

import cn_clip.clip
import numpy as np
import open_clip
import pytest
import timm.data
import torch
import transformers
from cn_clip.clip.utils import image_transform
from foreign_models import (
    MODELS,
    SIZE,
    hf_altclip,
    hf_chinese_clip,
    hf_clip,
    open_clip_directory,
    openai_clip,
    padded,
    read_json,
    timm_tower,
)
from PIL import Image
from torchvision import transforms as tv

import vlcli
from vlcli.images.preprocess import Preprocess
from vlcli.models.convert import Card, express, open_checkpoint, suffix_of, write

CLIP_MEAN, CLIP_STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
LAST_PLACES = 2e-6  # normalised before or after the division by 255
TEXTS = ["a photo of a fox in the snow", "一只狐狸在雪地里", "Naïve CAFÉ, 3 cats!", "狗" * 90, "x"]


def pictures(folder: Path) -> list[Path]:
    """Files whose sizes have odd margins, and whose modes are those that a resize tells apart."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (97, 142, 3), dtype=np.uint8))
    smooth = Image.fromarray(np.add.outer(np.arange(150), np.arange(83)).astype(np.uint8))
    clear = noise.convert("RGBA")
    clear.putalpha(Image.fromarray(rng.integers(0, 256, (97, 142), dtype=np.uint8)))
    found = {
        "rgb.png": noise,
        "photo.jpg": noise.resize((201, 99)),
        "grey.png": smooth,
        "palette.png": noise.quantize(64),
        "alpha.png": clear,
        "small.png": noise.resize((31, 40)),
    }
    for name, picture in found.items():
        picture.save(folder / name)
    return [folder / name for name in found]


def assert_same_tensors(preprocess, theirs, folder: Path) -> None:
    for file in pictures(folder):
        with Image.open(file) as picture:
            found, wanted = preprocess(picture), theirs(picture)
        torch.testing.assert_close(
            found, wanted, rtol=0, atol=LAST_PLACES, msg=lambda m, f=file: f"{f.name}: {m}"
        )


def transformers_way(path: Path):
    processor = transformers.AutoImageProcessor.from_pretrained(path)
    return lambda picture: processor(images=picture, return_tensors="pt").pixel_values[0]


def back_in(path: Path, format: str, folder: Path) -> Path:
    """The same model, through ours and back."""
    write(express(open_checkpoint(path), "vlcli"), folder / "ours", card=Card())
    back = folder / f"back{suffix_of(format)}"
    write(express(open_checkpoint(folder / "ours"), format), back)
    return back


@pytest.mark.parametrize("build", [hf_clip, hf_chinese_clip, hf_altclip])
def test_transformers_processors(build, tmp_path):
    path = build(tmp_path).path
    format = path.name
    assert_same_tensors(vlcli.load(path).preprocess, transformers_way(path), tmp_path)
    back = back_in(path, format, tmp_path)
    assert_same_tensors(vlcli.load(back).preprocess, transformers_way(back), tmp_path)
    mine, theirs = read_json(back / "preprocessor_config.json"), read_json(path / "preprocessor_config.json")
    assert {key: mine[key] for key in theirs} == theirs or mine["do_center_crop"] is False


def test_openai_resizes_before_it_makes_rgb(tmp_path):
    def rgb(picture):
        return picture.convert("RGB")

    cubic = tv.InterpolationMode.BICUBIC
    steps = [
        tv.Resize(SIZE, cubic),
        tv.CenterCrop(SIZE),
        rgb,
        tv.ToTensor(),
        tv.Normalize(CLIP_MEAN, CLIP_STD),
    ]
    assert_same_tensors(vlcli.load(openai_clip(tmp_path).path).preprocess, tv.Compose(steps), tmp_path)


@pytest.mark.parametrize(
    "settings", [{}, {"interpolation": "bilinear", "resize_mode": "squash", "mean": [0.5] * 3}]
)
def test_open_clip(settings, tmp_path):
    path = open_clip_directory(tmp_path).path
    config = read_json(path / "open_clip_config.json")
    config["preprocess_cfg"] |= settings
    (path / "open_clip_config.json").write_text(json.dumps(config))
    _, theirs = open_clip.create_model_from_pretrained(f"local-dir:{path}")
    assert_same_tensors(vlcli.load(path).preprocess, theirs, tmp_path)
    back = back_in(path, "open_clip", tmp_path)
    _, theirs = open_clip.create_model_from_pretrained(f"local-dir:{back}")
    assert_same_tensors(vlcli.load(back).preprocess, theirs, tmp_path)


def test_chinese_clip(tmp_path):
    model = vlcli.load(MODELS["chinese-clip"][1](tmp_path).path)
    assert_same_tensors(model.preprocess, image_transform(SIZE), tmp_path)


@pytest.mark.parametrize(("name", "squash"), [("wukong-reduced", False), ("prd2", True)])
def test_wukong_and_r2d2_make_rgb_first(name, squash, tmp_path):
    cubic = tv.InterpolationMode.BICUBIC
    fit = [tv.Resize((SIZE, SIZE), cubic)] if squash else [tv.Resize(SIZE, cubic), tv.CenterCrop(SIZE)]
    steps = tv.Compose([*fit, tv.ToTensor(), tv.Normalize(CLIP_MEAN, CLIP_STD)])
    model = vlcli.load(MODELS[name][1](tmp_path).path)
    assert_same_tensors(model.preprocess, lambda picture: steps(picture.convert("RGB")), tmp_path)


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext"])
def test_timm(name, tmp_path):
    path, model = timm_tower(tmp_path, name, num_classes=0)
    config = open_checkpoint(path).checkpoint.config
    theirs = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
    assert_same_tensors(
        Preprocess(config.preprocess), lambda picture: theirs(picture.convert("RGB")), tmp_path
    )


# --- texts -------------------------------------------------------------------------------------------------


def assert_same_ids(model, wanted: torch.Tensor, pad: int) -> None:
    ids, mask = model.tokenize(TEXTS)
    found = ids.masked_fill(~mask, pad)
    assert torch.equal(padded(found, wanted.shape[1]) if pad == 0 else found, wanted)


@pytest.mark.parametrize("name", ["openai-clip", "open_clip"])
def test_open_clips_tokenizer_is_that_of_its_models(name, tmp_path):
    model = vlcli.load(MODELS[name][1](tmp_path).path)
    assert_same_ids(model, open_clip.get_tokenizer("ViT-B-32")(TEXTS, context_length=24), 0)


def test_cn_clips_tokenizer(tmp_path):
    model = vlcli.load(MODELS["chinese-clip"][1](tmp_path).path)
    assert_same_ids(model, cn_clip.clip.tokenize(TEXTS), 0)


def test_a_directory_of_transformers_brings_its_tokenizer(tmp_path):
    path = hf_altclip(tmp_path).path
    for place in (path, back_in(path, "hf-altclip", tmp_path)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        wanted = tokenizer(TEXTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
        model = vlcli.load(place)
        assert_same_ids(model, wanted["input_ids"], 1)
        assert torch.equal(model.tokenize(TEXTS)[1], wanted["attention_mask"].bool())


def test_word_pieces_come_back_as_transformers_reads_them(tmp_path):
    """Our tokenizer, which a directory without one gets, as files that AutoTokenizer opens."""
    back = back_in(hf_chinese_clip(tmp_path).path, "hf-chinese-clip", tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(back)
    wanted = tokenizer(TEXTS, padding=True, truncation=True, max_length=52, return_tensors="pt")
    assert_same_ids(vlcli.load(back), wanted["input_ids"], 0)
    assert tokenizer.model_max_length == 52
