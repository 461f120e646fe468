"""What a step of R2D2 costs: the passes of its towers, its ranking, and its masked words (R2D2 §4.4: GFLOPs)."""

from __future__ import annotations

from vlcli.models.dual import DualEncoder
from vlcli.models.r2d2_cost import ranking_cost
from vlcli.schemas.objectives import R2D2ObjectiveConfig


def step_flops(
    model: DualEncoder, objective: R2D2ObjectiveConfig, *, image_flops: int, text_flops: int
) -> dict[str, int]:
    """Operations of the forward pass of one training pair by part, with texts as long as the context: the image tower
    (twice where patches are masked), the student's passes of the text, the teacher's of the text and its projection of
    the picture, ranking, masked words.

    `image_flops` and `text_flops` are of one pass, as cost.py counts them. The products of pre-ranking, which depend on
    batch and queue, are not among them.
    """
    config, words = model.config, objective.masked_language
    features = objective.feature_distillation
    masks = bool(words.weight or features.weight)
    found = {
        "image": image_flops * (1 + config.patch_mask),
        "text": text_flops * (1 + masks),
        "teacher": text_flops + 2 * model.image.width * config.dim if objective.teaches else 0,
        "ranking": 0,
        "words": 0,
    }
    if config.ranking is not None:
        context = config.text.context
        rows = model.grid[0] * model.grid[1] + 1
        cost = ranking_cost(
            config.ranking,
            width=config.text.width,
            image_width=model.image.width,
            vocabulary=config.text.vocabulary,
            words=context,
            patches=rows,
            masked=max(1, int(words.share * (context - 2) + 0.5)),
        )
        found["ranking"] = cost.match
        if words.weight:
            found["words"] = cost.words + (0 if words.enhanced else cost.own_pass)
    return found
