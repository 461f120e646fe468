"""A dual encoder of a few seconds."""

from vlcli.models.config import DualEncoderConfig
from vlcli.models.dual import DualEncoder


def tiny_model(similarity="tokenwise", **architecture):
    return DualEncoder(
        DualEncoderConfig.model_validate(
            {
                "dim": 16,
                "similarity": similarity,
                "image": {"name": "efficientnet_lite0", "preprocess": {"size": 32}},
                "text": {"width": 32, "layers": 1, "heads": 2},
                **architecture,
            }
        )
    )
