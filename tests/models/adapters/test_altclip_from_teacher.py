"""AltCLIP from its beginning to transformers: CLIP teaches an XLM-R, the contrastive stage goes on with it and CLIP's
locked image side, and what comes out gives AltCLIPModel's logits."""

import shutil

import orjson
import pytest
import tomli_w
import torch
import transformers
from foreign_models import BERT, hf_clip, sentencepiece

import vlcli
from vlcli.cli import app
from vlcli.models.checkpoint import load_text_encoder
from vlcli.models.convert import open_checkpoint
from vlcli.training.teacher import open_teacher

NEAR = 1e-5
ROWS = [
    ("a cat", "猫"),
    ("a fox", "狐狸"),
    ("a dog", "狗"),
    ("a cat in snow", "猫在雪地里"),
    ("a photo", "雪地"),
]


def run(*arguments):
    app([str(a) for a in arguments], prog_name="vlcli", standalone_mode=False)


def xlm_roberta(folder):
    sizes = BERT | {"vocab_size": 300, "layer_norm_eps": 1e-5, "pad_token_id": 1, "type_vocab_size": 1}
    torch.manual_seed(3)
    transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**sizes)).save_pretrained(folder)
    sentencepiece().save_pretrained(folder)


def contrastive_recipe(folder, image, text):
    """altclip-m9, cut to the size of these towers."""
    values = {
        "extends": "altclip-m9",
        "model": {
            "dim": 32,
            "image": image.model_dump(mode="json", exclude_none=True) | {"locked": True, "init": "CLIP"},
            "text": text.model_dump(mode="json", exclude_none=True) | {"name": "", "tokenizer": "init"},
        },
        "schedule": {"steps": 2, "warmup_steps": 1},
        "optimizer": {"lr": 1e-3},
        "data": {"batch_size": 4, "workers": 0, "cache": str(folder / "cache")},
        "train": {"precision": "fp32", "save_every": 0},
    }
    (folder / "small.toml").write_text(tomli_w.dumps(values), encoding="utf-8")
    return folder / "small.toml"


def pictures(folder):
    from PIL import Image

    found = []
    for number, (english, chinese) in enumerate(ROWS):
        Image.new("RGB", (64, 64), (40 * number, 90, 255 - 40 * number)).save(folder / f"{number}.png")
        found.append({"image": f"{number}.png", "text": [english, chinese]})
    (folder / "pairs.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in found))
    return folder / "pairs.jsonl"


@pytest.mark.parametrize("target", ["pooled", "projected"])
def test_the_teachers_vectors_are_transformers_own(tmp_path, target):
    """CLIP's state at the end of the text, before its projection or behind it, whatever it is padded with."""
    path = hf_clip(tmp_path).path
    teacher = open_teacher(str(path), target=target)
    texts = ["a cat", "a photo of a fox in the snow", "dog"]
    ids, mask = vlcli.load(path).tokenize(texts)
    kind = transformers.CLIPTextModel if target == "pooled" else transformers.CLIPTextModelWithProjection
    theirs = kind.from_pretrained(path, projection_dim=32).eval()
    with torch.no_grad():
        found = theirs(input_ids=ids, attention_mask=mask.long())
    wanted = found.pooler_output if target == "pooled" else found.text_embeds
    torch.testing.assert_close(torch.from_numpy(teacher.encode(texts)), wanted, rtol=NEAR, atol=NEAR)
    assert teacher.width == wanted.shape[1]
    assert (teacher.projection is None) == (target == "projected")


def test_both_stages_and_transformers_altclip(tmp_path):
    clip = hf_clip(tmp_path)
    image = open_checkpoint(clip.path).checkpoint.config.image
    xlm_roberta(tmp_path / "xlm-roberta")
    rows = [{"en": english, "zh": chinese} for english, chinese in ROWS]
    (tmp_path / "parallel.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    run(
        "distill", "--recipe", "altclip-m2-teacher", "--teacher", clip.path, "--student", tmp_path / "xlm-roberta",
        "--data", tmp_path / "parallel.jsonl", "-o", tmp_path / "t", "--batch-size", "5", "--precision", "fp32", "-q",
        "--set", "model.text.head.width=64", "--set", "schedule.steps=3", "--set", "optimizer.lr=1e-3",
        "--set", f"data.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    student = load_text_encoder(tmp_path / "t")
    assert torch.equal(student.text_projection.weight, clip.tensors["text_projection.weight"])
    recipe = contrastive_recipe(tmp_path, image, student.config.text)
    shutil.rmtree(tmp_path / "xlm-roberta")  # nothing of it is read any more
    run(
        "pretrain", "--recipe", recipe, "--init", clip.path, "--init", tmp_path / "t", "--data", pictures(tmp_path),
        "-o", tmp_path / "dual", "-q",
    )  # fmt: skip
    ours = vlcli.load(tmp_path / "dual")
    # the second --init has won the text side; the image side is CLIP's, locked
    assert torch.equal(ours.image_projection.weight, clip.tensors["visual_projection.weight"])
    assert not torch.equal(ours.text_head.fc.weight, student.text_head.fc.weight)
    run("convert", tmp_path / "dual", "--to", "hf-altclip", "-o", tmp_path / "hf", "-q")
    theirs = transformers.AltCLIPModel.from_pretrained(tmp_path / "hf").eval()
    texts = [text for row in ROWS for text in row]
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ids, mask = ours.tokenize(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert tokenizer(texts, padding=True)["input_ids"] == ids.tolist()
    with torch.no_grad():
        logits = theirs(input_ids=ids, attention_mask=mask.long(), pixel_values=pixels).logits_per_image
        found = ours.similarity(ours.encode_image(pixels), ours.encode_text(ids, mask)).i2t * ours.scale()
    torch.testing.assert_close(found, logits, rtol=NEAR, atol=NEAR * 100)
