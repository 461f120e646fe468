"""What the model cards of a prior and of a decoder say that no other checkpoint's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TITLES = {
    "prior": "A prior: from a text to the image embedding of a dual encoder",
    "decoder": "A decoder: from the image embedding of a dual encoder to a small picture",
}
USE = "`vlcli generate DECODER --prior PRIOR --clip CLIP --text 红苹果 -o pictures/`, all three of one training."


def front_matter(license: str) -> str:
    """The YAML that model hubs read."""
    lines = ["---", f"license: {license}", "library_name: vlcli", "pipeline_tag: text-to-image"]
    return "\n".join([*lines, "tags:", "- text-to-image", "- unclip", "---"])


def architecture_rows(kind: str, architecture: Mapping[str, Any], parameters: str) -> list[tuple[str, str]]:
    """(what, how much) of an architecture."""
    noise = architecture["noise"]
    rows = [("dual encoder", f"`{architecture['encoder']}`, {architecture['dim']} dimensions")]
    if kind == "prior":
        shape = (
            f"{architecture['layers']} layers, {architecture['heads']} heads of {architecture['head_width']}"
        )
        rows.append(("transformer", shape))
    else:
        side = architecture["size"]
        rows += [
            ("pictures", f"{side} × {side}"),
            ("channels", ", ".join(map(str, architecture["channels"]))),
        ]
    rows.append(
        ("noise", f"{noise['levels']:,} levels, {noise['schedule']}; it predicts the {noise['predicts']}")
    )
    return [*rows, ("in all", parameters)]
