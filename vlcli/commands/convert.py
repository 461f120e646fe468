"""vlcli convert: checkpoints from one library's format into another's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from vlcli.commands import _complete as complete
from vlcli.commands import _options as o
from vlcli.errors import UsageError
from vlcli.models.formats import Name, Output

EXAMPLES = (
    "vlcli convert ViT-B-32.pt -o clip/",
    "vlcli convert clip/ --to hf-clip -o clip-hf/",
    "vlcli convert ViT-B-32.pt --to open_clip --dry-run",
    "vlcli convert runs/lit-filip --to onnx -o lit-filip-onnx/",
)

MANUAL = {
    "FORMATS": (
        ("vlcli", "A checkpoint directory of this program, or a run (its best checkpoint)."),
        ("openai-clip", "OpenAI's CLIP: a state dict (.pt), or the TorchScript archive of its download."),
        (
            "open_clip",
            "A directory with open_clip_config.json, or weights with --model-config: its own vision and text"
            " transformers.",
        ),
        (
            "hf-clip, hf-chinese-clip, hf-altclip",
            "Directories of transformers: CLIPModel, ChineseCLIPModel, AltCLIPModel (both generations of names).",
        ),
        ("chinese-clip", "Chinese-CLIP's own .pt."),
        ("wukong", "Wukong's release: its PyTorch .ckpt, or MindSpore's pickled arrays; written as a .ckpt."),
        (
            "r2d2",
            "R2D2 and PRD2, a .pth. R2D2 becomes a checkpoint of kind r2d2, with --towers-only a dual encoder. A head"
            " for masked words, which pre-training leaves behind, has no place in it.",
        ),
        (
            "timm",
            "An image tower alone: a directory with timm's config.json. To vlcli it becomes a checkpoint of kind"
            " image; from a dual encoder it takes the image tower.",
        ),
        (
            "onnx",
            "Out only: image.onnx and text.onnx, for any batch and any length of text, proved on onnxruntime to 1e-4"
            " before they are kept; export.json says what goes in and out. Needs pip install 'vlcli[onnx]'.",
        ),
    ),
    "NOTES": (
        (
            "",
            "Tensors keep their values and types: what is converted and converted back is the same in every bit. A"
            " tensor without a place is an error that names it (--debug lists all), and so is a model that a format"
            " cannot express. What is stored and never read (position ids, an unread pooler) is known by name and left"
            " out.",
        ),
        (
            "",
            "Preprocessing and tokenizer come along. Where a format prepares pictures by code of its own, which differs"
            " from the model's in the last digits of some pixels, a note says in what.",
        ),
        (
            "",
            "A checkpoint of vlcli is ready to be shared: safetensors, configuration, tokenizer, and a card of what"
            " is known of it: architecture, lineage, and the results that were measured on its very weights.",
        ),
        (
            "",
            "Pickles are read without running anything: a name in one that weights do not need is an error.",
        ),
    ),
}


def command(
    source: Annotated[
        str, Argument(metavar="FROM", help="A checkpoint: a directory, a run, a file of weights.")
    ],
    to: Annotated[Output, Option("--to", help="Format of the output.")] = "vlcli",
    output: Annotated[
        Path | None,
        Option("-o", "--output", help="What is written.", show_default="FROM's name and the format's"),
    ] = None,
    from_: Annotated[
        Name | None, Option("--from", help="Format of the input; default: told by its tensors and files.")
    ] = None,
    model_config: Annotated[
        Path | None,
        Option(
            "--model-config", metavar="JSON", help="The model's configuration, where it is not beside it."
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        Option(
            "--tokenizer",
            metavar="wordpiece-zh|clip-bpe|DIR|FILE",
            help="The tokenizer, where none is beside the weights or another is meant.",
            autocompletion=complete.words("wordpiece-zh", "clip-bpe"),
        ),
    ] = None,
    similarity: Annotated[
        Literal["global", "tokenwise"] | None,
        Option(
            "--similarity", help="Of Wukong's weights without token reduction; default: by their dimension."
        ),
    ] = None,
    towers_only: Annotated[
        bool,
        Option("--towers-only", help="Leave out what is no part of a dual encoder, R2D2's ranking part."),
    ] = False,
    results: Annotated[
        list[Path] | None,
        Option(
            "--results",
            metavar="JSONL",
            help="What zeroshot --json and retrieve --json say of FROM, for the model card; repeatable.",
        ),
    ] = None,
    license: Annotated[
        str | None, Option("--license", metavar="NAME", help="Licence of the weights, for the model card.")
    ] = None,
    force: o.Force = False,
    dry_run: o.DryRun = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Turn a checkpoint of another library into one of vlcli, or back, with the same numbers.

    The format is told by the tensors' names and the files beside them. What is written appears under its name only
    when it is whole. Every command that takes a checkpoint reads the foreign ones itself: converting is for
    training on, for sharing, and for going back.
    """
    from vlcli.commands._console import Console
    from vlcli.models.quickcheck import find_checkpoint

    console = Console("convert", quiet=quiet, verbose=verbose)
    place = find_checkpoint(source)
    from vlcli.models.adapters.format import Asked
    from vlcli.models.card import result_lines
    from vlcli.models.convert import (
        Card,
        default_output,
        express,
        open_checkpoint,
        refuse_place,
        write,
        write_onnx,
    )

    if to != "vlcli" and (results or license):
        raise UsageError("--results and --license are for the model card, which --to vlcli writes")
    out = output or default_output(place, to)
    refuse_place(out, to, force=force)
    opened = open_checkpoint(
        source,
        Asked(tokenizer=tokenizer, similarity=similarity, towers_only=towers_only),
        format=from_,
        model_config=model_config,
    )
    files = express(opened, to) if to != "onnx" else None
    card = Card([line for file in results or () for line in result_lines(file)], license or "unknown")
    tensors, values = opened.size
    told = f"{opened.format} ({tensors:,} tensors, {values:,} values)"
    if dry_run:
        print(f"would convert {told} to {to}, {out}")
        if out.exists():
            print(f"would replace {out}")
    for note in (*opened.checkpoint.notes, *(files.notes if files is not None else ())):
        console.note(note)
    if dry_run:
        return
    if files is None:
        difference = write_onnx(opened, out, force=force)
        told += f", onnxruntime within {difference:.1e} of torch"
    elif others := write(files, out, card=card if to == "vlcli" else None, force=force):
        console.note(f"--results: {others} measured on other weights, left out")
    console.note(f"{told} to {to}, {out}")
