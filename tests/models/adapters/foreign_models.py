"""Small random models of the original libraries, saved by their own savers: what the adapters are proved on.

Each has `path`, the features before normalisation `image(pixels)` and `text(ids, mask)`, `logits(pixels, ids, mask)` of
image→text, and `tensors`, what it was saved from, under the names of its own code.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cn_clip.clip.model
import open_clip
import timm
import torch
import torch.nn.functional as F
import transformers
from open_clip.push_to_hf_hub import save_config_for_hf
from r2d2_reference import JointLayer
from safetensors.torch import save_file
from timm.models import save_for_hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from wukong_reference import Swin, Text, ViT, Wukong

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger().setLevel(logging.ERROR)

SIZE = 64  # pixels of a side


@dataclass
class Foreign:
    """One saved model. `width_of_ids`: texts are padded to this length where its code wants that."""

    path: Path
    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor, Tensor], Tensor]
    logits: Callable[[Tensor, Tensor, Tensor], Tensor]
    tensors: dict[str, Tensor]
    model: Any = None


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> Any:
    """Random everywhere: norms, biases and zeros that a fresh model would hide behind."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            fan_in = parameter[0].numel()
            parameter.normal_(std=fan_in**-0.5 if "embedding" not in name else 0.3)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def cosine(image: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * scale


def padded(ids: Tensor, length: int) -> Tensor:
    return F.pad(ids, (0, length - ids.shape[1]))


def of_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- OpenAI's layout ---------------------------------------------------------------------------------------


def small_open_clip(*, quick: bool, custom: bool = False, heads: int = 1) -> tuple[Any, dict[str, Any]]:
    config: dict[str, Any] = {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": SIZE,
            "layers": 3,
            "width": 64,
            "patch_size": 16,
            "head_width": 64 // heads,
        },
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 64, "heads": heads, "layers": 2},
    }
    if quick:
        config["quick_gelu"] = True
    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    model = shaken(kind(**config))
    return model, config | ({"custom_text": True} if custom else {})


def clip_like(path: Path, model: Any, tensors: dict[str, Tensor]) -> Foreign:
    context = 24

    def text(ids: Tensor, mask: Tensor) -> Tensor:
        return model.encode_text(padded(ids, context))

    def logits(pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return cosine(model.encode_image(pixels), text(ids, mask), model.logit_scale.exp())

    return Foreign(path, model.encode_image, text, logits, tensors)


def openai_state(model: Any) -> dict[str, Tensor]:
    numbers = {"input_resolution": SIZE, "context_length": 24, "vocab_size": 49408}
    return of_state(model) | {name: torch.tensor(value) for name, value in numbers.items()}


def openai_clip(folder: Path) -> Foreign:
    """OpenAI's layers are open_clip's with QuickGELU and one head to 64 channels."""
    model, _ = small_open_clip(quick=True)
    state = openai_state(model)
    torch.save(state, folder / "ViT.pt")
    return clip_like(folder / "ViT.pt", model, state)


class Tree(nn.Module):
    """A tree of modules with given tensors at given names, for torch.jit.script."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        inner: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            first, dot, rest = name.partition(".")
            if dot:
                inner.setdefault(first, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(first, nn.Parameter(tensor))
            else:
                self.register_buffer(first, tensor)
        for name, below in inner.items():
            self.add_module(name, Tree(below))

    def forward(self, x: Tensor) -> Tensor:
        return x


def torchscript(folder: Path) -> Foreign:
    """The container of OpenAI's downloads."""
    model, _ = small_open_clip(quick=True)
    state = openai_state(model)
    torch.jit.script(Tree(state)).save(str(folder / "ViT-script.pt"))
    return clip_like(folder / "ViT-script.pt", model, state)


def open_clip_directory(folder: Path, *, custom: bool = False) -> Foreign:
    model, config = small_open_clip(quick=False, custom=custom, heads=2)
    path = folder / ("open_clip_custom" if custom else "open_clip")
    path.mkdir()
    model.visual.image_mean, model.visual.image_std = (
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )
    save_config_for_hf(model, path / "open_clip_config.json", config)
    save_file(of_state(model), path / "open_clip_model.safetensors")
    return clip_like(path, model, of_state(model))


def open_clip_custom(folder: Path) -> Foreign:
    return open_clip_directory(folder, custom=True)


# --- transformers ------------------------------------------------------------------------------------------

VISION = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 16,
}
BERT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 21128,
    "max_position_embeddings": 80,
}
CLIP_TEXT = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}


def hf(path: Path, model: Any) -> Foreign:
    def logits(pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, pixel_values=pixels, attention_mask=mask.long()).logits_per_image

    return Foreign(
        path,
        lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output,
        lambda ids, mask: model.get_text_features(input_ids=ids, attention_mask=mask.long()).pooler_output,
        logits,
        of_state(model),
    )


def hf_clip(folder: Path) -> Foreign:
    config = transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=VISION, projection_dim=32)
    model = shaken(transformers.CLIPModel(config))
    model.save_pretrained(folder / "hf-clip")
    transformers.CLIPImageProcessor(size={"shortest_edge": 72}, crop_size=SIZE).save_pretrained(
        folder / "hf-clip"
    )
    return hf(folder / "hf-clip", model)


def hf_chinese_clip(folder: Path) -> Foreign:
    config = transformers.ChineseCLIPConfig(text_config=BERT, vision_config=VISION, projection_dim=32)
    model = shaken(transformers.ChineseCLIPModel(config))
    path = folder / "hf-chinese-clip"
    model.save_pretrained(path)
    square = {"height": SIZE, "width": SIZE}
    transformers.ChineseCLIPImageProcessor(size=square, do_center_crop=False).save_pretrained(path)
    return hf(path, model)


PIECES = [f"▁{c}" for c in "一只狐狸在雪地里猫和狗acat"] + list(
    "abcdefghijklmnopqrstuvwxyz一只狐狸在雪地里猫和狗，。"
)


def sentencepiece() -> transformers.PreTrainedTokenizerFast:
    """A Unigram tokenizer of XLM-R's kind, with a few pieces."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    words = list(dict.fromkeys(["▁", *PIECES, "▁cat", "▁photo"]))
    tokenizer = Tokenizer(models.Unigram([(s, 0.0) for s in specials] + [(w, -2.0) for w in words], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def hf_altclip(folder: Path) -> Foreign:
    text = BERT | {"vocab_size": 300, "project_dim": 48}
    config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION, projection_dim=32)
    model = shaken(transformers.AltCLIPModel(config))
    path = folder / "hf-altclip"
    model.save_pretrained(path)
    sentencepiece().save_pretrained(path)
    transformers.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE).save_pretrained(path)
    return hf(path, model)


# --- the rest ----------------------------------------------------------------------------------------------


def chinese_clip(folder: Path) -> Foreign:
    model = shaken(
        cn_clip.clip.model.CLIP(
            embed_dim=32,
            image_resolution=SIZE,
            vision_layers=3,
            vision_width=64,
            vision_patch_size=16,
            vocab_size=21128,
            text_attention_probs_dropout_prob=0.1,
            text_hidden_act="gelu",
            text_hidden_dropout_prob=0.1,
            text_hidden_size=64,
            text_initializer_range=0.02,
            text_intermediate_size=96,
            text_max_position_embeddings=80,
            text_num_attention_heads=1,
            text_num_hidden_layers=2,
            text_type_vocab_size=2,
        )
    )
    state = {f"module.{name}": tensor for name, tensor in of_state(model).items()}
    saved = {"epoch": 3, "step": 7, "name": "small", "state_dict": state, "optimizer": {"state": {}}}
    torch.save(saved, folder / "clip_cn.pt")

    def logits(pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        return model.get_similarity(pixels, ids)[0]

    return Foreign(
        folder / "clip_cn.pt", model.encode_image, lambda ids, mask: model.encode_text(ids), logits, state
    )


def wukong(folder: Path, similarity: str, *, swin: bool = False) -> Foreign:
    dim = 256 if similarity != "global" else 48
    tokens = 6 if similarity == "reduced" else 0
    if swin:
        visual: nn.Module = Swin(SIZE, 4, 16, (2, 2, 1), (1, 2, 4), 4, dim, tokens)
    else:
        visual = ViT(SIZE, 16, 64, 3, dim, tokens)
    model = shaken(Wukong(visual, Text(21128, 32, 64, 2, dim), similarity))
    path = folder / f"wukong_{similarity}{'_swin' if swin else ''}.ckpt"
    torch.save({"meta": {"epoch": 20}, "state_dict": of_state(model)}, path)
    return Foreign(
        path,
        model.image,
        lambda ids, mask: model.text(padded(ids, 32)),
        lambda pixels, ids, mask: model.i2t(pixels, padded(ids, 32)) * model.loss.logit_scale.exp(),
        of_state(model),
    )


class Ranking(nn.Module):
    """The two towers, and for R2D2 the ranking part, whose texts are wider than its images."""

    def __init__(self, *, ranking: bool) -> None:
        super().__init__()
        one_head = {"num_attention_heads": 1}
        config = transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=VISION | one_head)
        clip = transformers.CLIPModel(config)
        self.visual_encoder = clip.vision_model
        width = 128 if ranking else 64
        heads = {"hidden_size": width, "num_attention_heads": width // 64}
        self.text_encoder = transformers.BertModel(transformers.BertConfig(**BERT | heads))
        self.vision_proj, self.text_proj = nn.Linear(64, 48), nn.Linear(width, 48)
        self.temp = nn.Parameter(torch.tensor(0.0312))
        if ranking:
            self.text_joint_layer = JointLayer(width, 64, width // 64, 96, layers=2)
            self.img_joint_layer = JointLayer(width, width, width // 64, 96, layers=2)
            self.img_joint_proj = nn.Linear(64, width)
            self.itm_head, self.itm_head_i = nn.Linear(width, 2), nn.Linear(width, 2)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.vision_proj(self.visual_encoder(pixels).last_hidden_state[:, 0])

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.text_proj(self.text_encoder(ids, attention_mask=mask.long()).last_hidden_state[:, 0])


def prd2(folder: Path, *, ranking: bool = False) -> Foreign:
    model = Ranking(ranking=ranking)
    shaken(model)
    with torch.no_grad():
        model.temp.fill_(0.0312)
    path = folder / ("r2d2.pth" if ranking else "prd2.pth")
    state = of_state(model)
    # early checkpoints store this buffer
    state["visual_encoder.embeddings.position_ids"] = torch.arange(17)[None]
    torch.save({"model": state, "epoch": 4}, path)
    return Foreign(
        path,
        model.encode_image,
        model.encode_text,
        lambda pixels, ids, mask: cosine(
            model.encode_image(pixels), model.encode_text(ids, mask), 1 / model.temp
        ),
        state,
        model,
    )


def timm_tower(folder: Path, name: str, **arguments: Any) -> tuple[Path, Any]:
    model = shaken(timm.create_model(name, pretrained=False, **arguments))
    path = folder / name
    save_for_hf(
        model,
        str(path),
        safe_serialization=True,
        model_args={k: v for k, v in arguments.items() if k != "num_classes"},
    )
    return path, model


MODELS: dict[str, tuple[str, Callable[[Path], Foreign]]] = {
    "openai-clip": ("openai-clip", openai_clip),
    "openai-clip-torchscript": ("openai-clip", torchscript),
    "open_clip": ("open_clip", open_clip_directory),
    "open_clip-custom": ("open_clip", open_clip_custom),
    "hf-clip": ("hf-clip", hf_clip),
    "hf-chinese-clip": ("hf-chinese-clip", hf_chinese_clip),
    "hf-altclip": ("hf-altclip", hf_altclip),
    "chinese-clip": ("chinese-clip", chinese_clip),
    "wukong-global": ("wukong", lambda folder: wukong(folder, "global")),
    "wukong-tokenwise": ("wukong", lambda folder: wukong(folder, "tokenwise")),
    "wukong-reduced": ("wukong", lambda folder: wukong(folder, "reduced")),
    "wukong-swin-global": ("wukong", lambda folder: wukong(folder, "global", swin=True)),
    "wukong-swin-tokenwise": ("wukong", lambda folder: wukong(folder, "tokenwise", swin=True)),
    "wukong-swin-reduced": ("wukong", lambda folder: wukong(folder, "reduced", swin=True)),
    "prd2": ("r2d2", prd2),
    "r2d2": ("r2d2", lambda folder: prd2(folder, ranking=True)),
}


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
