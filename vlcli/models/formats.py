"""The names of the formats of checkpoints: `convert --from` and `--to`. Nothing heavy is imported."""

from typing import Literal, get_args

Name = Literal[
    "vlcli",
    "openai-clip",
    "open_clip",
    "hf-clip",
    "hf-chinese-clip",
    "chinese-clip",
    "hf-altclip",
    "wukong",
    "r2d2",
    "timm",
]
OURS, *FOREIGN = get_args(Name)
ONNX = "onnx"
Output = Literal[Name, "onnx"]
