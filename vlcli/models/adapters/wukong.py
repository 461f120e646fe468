"""Wukong's released models: a PyTorch `.ckpt` or MindSpore's pickled arrays, under one scheme of names.

Pictures go through CLIP's vision transformer or a Swin transformer of the first generation's layout, texts through a
causal transformer under `transformer.`, read at [SEP]. Reduced models have a `token_learner` (also called
`token_reduction`, which is the name in the release's code).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vlcli.errors import InputError
from vlcli.images.config import PreprocessConfig
from vlcli.models.adapters import preprocessing
from vlcli.models.adapters.clip_names import OPENAI_IMAGE, openai_text
from vlcli.models.adapters.format import (
    Asked,
    CannotExpress,
    Checkpoint,
    Files,
    Format,
    built,
    place,
    place_back,
)
from vlcli.models.adapters.names import SCALAR, TRANSPOSED, Row, pair, under
from vlcli.models.adapters.parts import (
    refuse_no_clip_text,
    subtle_notes,
    temperature,
    text_table,
)
from vlcli.models.adapters.source import Source
from vlcli.models.adapters.tokenizing import tokenizer_of
from vlcli.models.adapters.vit import count, tower, vit_in, vit_of
from vlcli.text.wordpiece import WordPiece

NAME = "wukong"
TOKENWISE_DIM = (
    256  # the joint dimension of every released token-wise model; the global ones have 512 and 768
)

_SWIN_BLOCK = "layers.{n}.blocks.{m}"
SWIN_IMAGE = (
    *pair("patch_embed.proj", "patch_embed.proj"),
    *pair("patch_embed.norm", "patch_embed.norm"),
    *pair(f"{_SWIN_BLOCK}.norm1", f"{_SWIN_BLOCK}.norm1"),
    Row(
        f"{_SWIN_BLOCK}.attn.relative_position_bias_table", f"{_SWIN_BLOCK}.attn.relative_position_bias_table"
    ),
    *pair(f"{_SWIN_BLOCK}.attn.qkv", f"{_SWIN_BLOCK}.attn.qkv"),
    *pair(f"{_SWIN_BLOCK}.attn.proj", f"{_SWIN_BLOCK}.attn.proj"),
    *pair(f"{_SWIN_BLOCK}.norm2", f"{_SWIN_BLOCK}.norm2"),
    *pair(f"{_SWIN_BLOCK}.mlp.fc1", f"{_SWIN_BLOCK}.mlp.fc1"),
    *pair(f"{_SWIN_BLOCK}.mlp.fc2", f"{_SWIN_BLOCK}.mlp.fc2"),
    # patches are merged at the end of a stage there, at the beginning of the next in timm
    *pair("layers.{n+1}.downsample.norm", "layers.{n}.downsample.norm"),
    Row("layers.{n+1}.downsample.reduction.weight", "layers.{n}.downsample.reduction.weight"),
    *pair("norm", "norm"),
)
# Masks and indices that follow from the window's size.
SWIN_BUFFERS = r"visual\.layers\.\d+\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)"
# (width, depths, heads, window) → timm's name
SWINS: dict[tuple[int, tuple[int, ...], tuple[int, ...], int], str] = {
    (192, (2, 2, 18, 2), (6, 12, 24, 48), 7): "swin_large_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32), 7): "swin_base_patch4_window7_224",
    (96, (2, 2, 6, 2), (3, 6, 12, 24), 7): "swin_tiny_patch4_window7_224",
}

REDUCTION = (
    *pair("reduction.norm", "visual.token_learner.norm"),
    Row("reduction.attention_maps.0.weight", "visual.token_learner.attention_maps.0.weight"),
    Row("reduction.attention_maps.1.weight", "visual.token_learner.attention_maps.1.weight"),
    Row("reduction.feat_conv.weight", "visual.token_learner.feat_conv.weight"),
)
TEXT = (
    *under(openai_text("resblocks.{n}"), "text.", "transformer."),
    Row("text_projection.weight", "transformer.text_projection", TRANSPOSED),
    Row("log_scale", "loss.logit_scale", SCALAR),
    *REDUCTION,
)
VIT_ROWS = (
    *under(OPENAI_IMAGE, "image.body.", "visual."),
    Row("image_projection.weight", "visual.proj", TRANSPOSED),
    *TEXT,
)
SWIN_ROWS = (*under(SWIN_IMAGE, "image.body.", "visual."), *pair("image_projection", "visual.head"), *TEXT)


def recognises(source: Source) -> bool:
    return {"transformer.token_embedding.weight", "transformer.text_projection"} <= source.keys


def read(source: Source, asked: Asked) -> Checkpoint:
    file = str(source.weights)
    given = {
        name.replace("token_reduction", "token_learner"): tensor for name, tensor in source.state.items()
    }
    swin = "visual.patch_embed.proj.weight" in given
    state = place(
        SWIN_ROWS if swin else VIT_ROWS, source, NAME, known=[SWIN_BUFFERS] if swin else [], state=given
    )
    notes = []
    if "log_scale" not in state:
        state["log_scale"] = torch.tensor(math.log(1 / 0.07))
        notes.append(
            "it stores no temperature, which its own evaluation does not use: 1/0.07 is put in its place"
        )
    if "image_projection.weight" not in state:
        raise InputError(f"visual.{'head.weight' if swin else 'proj'} is missing", file=file)
    dim = state["image_projection.weight"].shape[0]
    similarity = "reduced" if "reduction.norm.weight" in state else asked.similarity
    if similarity is None:
        similarity = "tokenwise" if dim == TOKENWISE_DIM else "global"
        notes.append(
            f"read as {similarity}, as the joint dimension {dim} suggests; --similarity says otherwise"
        )
    if swin:
        image = _swin(state, given, file)
    else:
        vit = vit_of(state, file=file, activation="quick_gelu")
        image = tower(vit, preprocessing.at_size(preprocessing.WUKONG, vit.size))
    architecture: dict[str, Any] = {
        "dim": dim,
        "similarity": similarity,
        "image": image,
        "text": text_table(state, pooling="last", activation="quick_gelu", tokenizer="wordpiece-zh"),
        "image_projection": {"kind": "linear", "bias": swin},
        "text_projection": {"kind": "linear"},
        "temperature": temperature(state),
    }
    if similarity != "global":  # as its own evaluation scores
        architecture |= {"i2t_padding": "zero", "t2i_special_tokens": "include"}
    if similarity == "reduced":
        tokens = state.get("reduction.attention_maps.1.weight", torch.empty(1)).shape[0]
        architecture["reduction"] = {"kind": "released", "tokens": tokens}
    tokenizer = tokenizer_of(source, asked, default="wordpiece-zh", padding_id=0)
    checkpoint = built(source, architecture, state, tokenizer)
    checkpoint.notes += notes
    return checkpoint


def _swin(state: Mapping[str, Tensor], given: Mapping[str, Tensor], file: str) -> dict[str, Any]:
    """The `[model.image]` table of a Swin transformer, off the shapes of its tensors."""
    stages = count(state, "image.body.layers.")
    table = "image.body.layers.{}.blocks.0.attn.relative_position_bias_table"
    try:
        width, _, patch, _ = state["image.body.patch_embed.proj.weight"].shape
        depths = tuple(count(state, f"image.body.layers.{n}.blocks.") for n in range(stages))
        heads = tuple(state[table.format(n)].shape[1] for n in range(stages))
        window = (math.isqrt(state[table.format(0)].shape[0]) + 1) // 2
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(f"no Swin transformer: {error}", file=file) from error
    # only shifted windows leave a trace of a picture's size: one mask to a window of the first stage
    masks = given.get("visual.layers.0.blocks.1.attn_mask")
    size = 224 if masks is None else math.isqrt(masks.shape[0]) * window * patch
    preprocess = PreprocessConfig(size=size)
    known = SWINS.get((width, depths, heads, window)) if size == 224 and patch == 4 else None
    if known:
        return {"name": known, "locked": False, "preprocess": preprocess}
    arguments = {
        "embed_dim": width,
        "depths": list(depths),
        "num_heads": list(heads),
        "window_size": window,
        "patch_size": patch,
    }
    name = "swin_large_patch4_window7_224"
    return {"name": name, "arguments": arguments, "locked": False, "preprocess": preprocess}


def swin_buffers(state: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """What the release's strict loader wants beside the parameters: in every block the index of relative positions, in
    those with shifted windows the mask, −100 between patches that the shift has brought together."""
    found: dict[str, Tensor] = {}
    patch = state["visual.patch_embed.proj.weight"].shape[-1]
    for name in [name for name in state if name.endswith(".relative_position_bias_table")]:
        block = name.removesuffix(".attn.relative_position_bias_table")
        stage, number = (int(part) for part in block.split(".")[2::2])
        window = (math.isqrt(state[name].shape[0]) + 1) // 2
        rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        place = torch.stack([rows.flatten(), columns.flatten()])
        rise, run = place[:, :, None] - place[:, None, :] + window - 1
        found[f"{block}.attn.relative_position_index"] = rise * (2 * window - 1) + run
        side, shift = size // patch >> stage, window // 2
        if number % 2 == 0 or side <= window:
            continue
        # before the shift a row lay in one of three bands: what it keeps, what is cut off, what comes round
        band = torch.full((side,), 2)
        band[:-shift] = 1
        band[:-window] = 0
        region = 3 * band[:, None] + band
        tiles = region.unfold(0, window, window).unfold(1, window, window).reshape(-1, window * window)
        apart = tiles[:, None, :] != tiles[:, :, None]
        found[f"{block}.attn_mask"] = apart * -100.0
    return found


def express(checkpoint: Checkpoint) -> Files:
    refuse_no_clip_text(checkpoint)
    config, text = checkpoint.config, checkpoint.config.text
    if text.pooling != "last" or not isinstance(checkpoint.tokenizer, WordPiece):
        raise CannotExpress("its texts are word pieces read at [SEP], the model's are not")
    if text.activation != "quick_gelu" or text.eps != 1e-5 or text.heads != text.width // 64:
        raise CannotExpress(
            "its text tower has QuickGELU, LayerNorms of 1e-5 and a head to 64 channels, the model's not"
        )
    if config.similarity == "reduced" and config.reduction.kind != "released":
        raise CannotExpress("its token reduction is the released one, the model's is the paper's")
    swin = "swin" in config.image.name
    for side, projection in (("image", config.image_projection), ("text", config.text_projection)):
        bias = swin and side == "image"
        if projection.kind != "linear" or projection.bias != bias:
            raise CannotExpress(
                f"its {side} projection is linear {'with' if bias else 'without'} a bias, the model's not"
            )
    if not swin:
        vit = vit_in(checkpoint)
        if vit.activation != "quick_gelu" or vit.eps != 1e-5 or vit.heads != vit.width // 64:
            raise CannotExpress("its image tower has QuickGELU, LayerNorms of 1e-5 and a head to 64 channels")
    different = preprocessing.refuse_other(config.image.preprocess, preprocessing.WUKONG)
    state = place_back(SWIN_ROWS if swin else VIT_ROWS, checkpoint)
    if swin:
        state |= swin_buffers(state, config.image.preprocess.size)
    return Files(torch={"state_dict": state}, notes=subtle_notes(different, NAME))


FORMAT = Format(NAME, "Wukong's release, a .ckpt", ".ckpt", recognises, read, express)
