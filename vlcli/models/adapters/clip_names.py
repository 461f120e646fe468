"""CLIP's two transformers under the names of OpenAI's code and of transformers, row by row against ours.

OpenAI's layout is also open_clip's, Chinese-CLIP's (image side) and Wukong's; transformers' CLIP vision model is also
Chinese-CLIP's, AltCLIP's and R2D2's. Ours: timm's ViT as `image.body`, the causal transformer as `text`.
"""

from __future__ import annotations

from vlcli.models.adapters.names import POSITIONS, TOKEN, TRANSPOSED, Row, joined, pair, under

# Numbers beside OpenAI's weights that its loader reads off the shapes anyway.
OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
# Buffers 0, 1, 2, … that older versions of transformers stored.
POSITION_IDS = r"(.*\.)?position_ids"

_OPENAI_BLOCK = "transformer.resblocks.{n}"

OPENAI_IMAGE = (
    Row("cls_token", "class_embedding", TOKEN),
    Row("pos_embed", "positional_embedding", POSITIONS),
    Row("patch_embed.proj.weight", "conv1.weight"),
    *pair("norm_pre", "ln_pre"),
    *pair("blocks.{n}.norm1", f"{_OPENAI_BLOCK}.ln_1"),
    Row("blocks.{n}.attn.qkv.weight", f"{_OPENAI_BLOCK}.attn.in_proj_weight"),
    Row("blocks.{n}.attn.qkv.bias", f"{_OPENAI_BLOCK}.attn.in_proj_bias"),
    *pair("blocks.{n}.attn.proj", f"{_OPENAI_BLOCK}.attn.out_proj"),
    *pair("blocks.{n}.norm2", f"{_OPENAI_BLOCK}.ln_2"),
    *pair("blocks.{n}.mlp.fc1", f"{_OPENAI_BLOCK}.mlp.c_fc"),
    *pair("blocks.{n}.mlp.fc2", f"{_OPENAI_BLOCK}.mlp.c_proj"),
    *pair("norm", "ln_post"),
)


def openai_text(blocks: str = _OPENAI_BLOCK) -> tuple[Row, ...]:
    """The causal text transformer; Wukong holds its blocks one level higher."""
    return (
        Row("token_embedding.weight", "token_embedding.weight"),
        Row("positional_embedding", "positional_embedding"),
        *pair("blocks.{n}.ln_1", f"{blocks}.ln_1"),
        Row("blocks.{n}.qkv.weight", f"{blocks}.attn.in_proj_weight"),
        Row("blocks.{n}.qkv.bias", f"{blocks}.attn.in_proj_bias"),
        *pair("blocks.{n}.out", f"{blocks}.attn.out_proj"),
        *pair("blocks.{n}.ln_2", f"{blocks}.ln_2"),
        *pair("blocks.{n}.fc", f"{blocks}.mlp.c_fc"),
        *pair("blocks.{n}.proj", f"{blocks}.mlp.c_proj"),
        *pair("ln_final", "ln_final"),
    )


OPENAI_PROJECTIONS = (
    Row("image_projection.weight", "visual.proj", TRANSPOSED),
    Row("text_projection.weight", "text_projection", TRANSPOSED),
    Row("log_scale", "logit_scale"),
)

_HF_LAYER = "encoder.layers.{n}"
_HF_PARTS = tuple(f"{_HF_LAYER}.self_attn.{part}_proj" for part in "qkv")

HF_IMAGE = (
    Row("cls_token", "embeddings.class_embedding", TOKEN),
    Row("pos_embed", "embeddings.position_embedding.weight", POSITIONS),
    Row("patch_embed.proj.weight", "embeddings.patch_embedding.weight"),
    *pair("norm_pre", "pre_layrnorm"),  # sic
    *pair("blocks.{n}.norm1", f"{_HF_LAYER}.layer_norm1"),
    *joined("blocks.{n}.attn.qkv", *_HF_PARTS),
    *pair("blocks.{n}.attn.proj", f"{_HF_LAYER}.self_attn.out_proj"),
    *pair("blocks.{n}.norm2", f"{_HF_LAYER}.layer_norm2"),
    *pair("blocks.{n}.mlp.fc1", f"{_HF_LAYER}.mlp.fc1"),
    *pair("blocks.{n}.mlp.fc2", f"{_HF_LAYER}.mlp.fc2"),
    *pair("norm", "post_layernorm"),
)

HF_TEXT = (
    Row("token_embedding.weight", "embeddings.token_embedding.weight"),
    Row("positional_embedding", "embeddings.position_embedding.weight"),
    *pair("blocks.{n}.ln_1", f"{_HF_LAYER}.layer_norm1"),
    *joined("blocks.{n}.qkv", *_HF_PARTS),
    *pair("blocks.{n}.out", f"{_HF_LAYER}.self_attn.out_proj"),
    *pair("blocks.{n}.ln_2", f"{_HF_LAYER}.layer_norm2"),
    *pair("blocks.{n}.fc", f"{_HF_LAYER}.mlp.fc1"),
    *pair("blocks.{n}.proj", f"{_HF_LAYER}.mlp.fc2"),
    *pair("ln_final", "final_layer_norm"),
)

HF_PROJECTIONS = (
    Row("image_projection.weight", "visual_projection.weight"),
    Row("text_projection.weight", "text_projection.weight"),
    Row("log_scale", "logit_scale"),
)


def bert(prefix: str) -> tuple[Row, ...]:
    """A BERT or RoBERTa without its pooler under `prefix`, which transformers' own names are ours."""
    layer = "encoder.layer.{n}"
    names = (
        "embeddings.LayerNorm",
        *(f"{layer}.attention.self.{part}" for part in ("query", "key", "value")),
        f"{layer}.attention.output.dense",
        f"{layer}.attention.output.LayerNorm",
        f"{layer}.intermediate.dense",
        f"{layer}.output.dense",
        f"{layer}.output.LayerNorm",
    )
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    rows = [Row(f"embeddings.{table}.weight", f"embeddings.{table}.weight") for table in tables]
    rows += [row for name in names for row in pair(name, name)]
    return under(rows, "text.body.", prefix)
