"""vlcli generate: captions out of pictures, and pictures out of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from vlcli.commands import _options as o
from vlcli.commands._finetune_diffusion import Encoder
from vlcli.errors import UsageError

CAPTIONS, PICTURES = "Captions", "Pictures"  # panels of --help

EXAMPLES = (
    "vlcli generate runs/captioner --caption val.jsonl -o captions.jsonl",
    "vlcli generate runs/captioner --caption shards/ --decode beam --beams 5 --format coco -o results.json",
    "vlcli generate stable-diffusion-v1-4/ --kv runs/kv --encoder runs/altclip-m9 --text en=fox --text zh=狐狸 -o fox/",
    "vlcli generate stable-diffusion-v1-4/ val.jsonl --langs en,zh --map 'zh=text,text=name_{lang}' --kv runs/kv"
    " --encoder runs/altclip-m9 -o pictures/",
    "vlcli generate runs/decoder --prior runs/prior --clip runs/clip --text 红苹果 --text 狐狸 --seed 0 -o pictures/",
)


def command(
    inputs: Annotated[
        list[str] | None,
        Argument(
            metavar="RUN [FILE]",
            help="A run or checkpoint, or a diffusion model's directory; then pairs: paths, globs, directories, shards;"
            " no path or - is stdin.",
            show_default=False,
        ),
    ] = None,
    files_from: o.FilesFrom = None,
    output: o.Output = None,
    caption: Annotated[
        bool,
        Option(
            "--caption",
            help="Describe the picture of each row, by a captioner.",
            rich_help_panel=CAPTIONS,
        ),
    ] = False,
    decode: Annotated[
        Literal["greedy", "beam", "sample"] | None,
        Option(
            "--decode",
            help="The likeliest token each time; the likeliest text of several that are followed; or drawn.",
            show_default="greedy",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    beams: Annotated[
        int | None,
        Option(
            "--beams",
            min=2,
            metavar="N",
            help="Texts that are followed at once (--decode beam).",
            show_default="3",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    min_length: Annotated[
        int | None,
        Option(
            "--min-length",
            min=0,
            metavar="N",
            help="Tokens of a caption at least, its beginning and its end not counted.",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        Option(
            "--max-length",
            min=1,
            metavar="N",
            help="And at most.",
            show_default="what the model can read",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        Option(
            "--top-p",
            min=0.0,
            max=1.0,
            metavar="P",
            help="Draw from the likeliest tokens that have this probability together (--decode sample).",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        Option(
            "--temperature",
            min=0.001,
            metavar="T",
            help="What logits are divided by before drawing (--decode sample).",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    repetition_penalty: Annotated[
        float | None,
        Option(
            "--repetition-penalty",
            min=0.001,
            metavar="X",
            help="Above 1, tokens that a caption has already are less likely.",
            show_default="1",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    format: Annotated[
        Literal["rows", "coco"] | None,
        Option(
            "--format",
            help="The rows with their captions, or COCO's results: one list of image_id and caption.",
            show_default="rows",
            rich_help_panel=CAPTIONS,
        ),
    ] = None,
    text: Annotated[
        list[str] | None,
        Option(
            "--text",
            metavar="[LANG=]TEXT",
            help="Draw this; repeatable. Without it RUN draws the first text of each row. Of a diffusion model's a"
            " language may stand in front.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        Option(
            "--texts",
            metavar="FILE",
            help="The same from a file: a JSON object of language and text, or a language, a tab and a text a line. Of"
            " diffusion models.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    langs: Annotated[
        str | None,
        Option(
            "--langs",
            metavar="LANG,...",
            help="Each row in each of these languages; {lang} in --map stands for one.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    kv: Annotated[
        str | None,
        Option(
            "--kv",
            metavar="RUN",
            help="Keys and values of finetune --task diffusion-kv, in place of the diffusion model's own.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    encoder: Encoder = None,
    prior: Annotated[
        str | None,
        Option(
            "--prior",
            metavar="RUN",
            help="Of finetune --task t2i --stage prior: what makes embeddings of texts, for RUN, a decoder.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    clip: Annotated[
        str | None,
        Option(
            "--clip",
            metavar="RUN",
            help="The dual encoder that both were trained with.",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        Option(
            "--steps",
            min=1,
            metavar="N",
            help="Steps from noise to a picture.",
            show_default="50",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        Option(
            "--guidance",
            min=0.0,
            metavar="X",
            help="How far away from what would be drawn of nothing; 1: what the text says, 0: nothing.",
            show_default="2; of a diffusion model 7.5",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    prior_steps: Annotated[
        int | None,
        Option(
            "--prior-steps",
            min=1,
            metavar="N",
            help="Steps from noise to an embedding.",
            show_default="25",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    prior_guidance: Annotated[
        float | None,
        Option(
            "--prior-guidance",
            min=0.0,
            metavar="X",
            help="The same guidance, of the prior.",
            show_default="4",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    prior_samples: Annotated[
        int | None,
        Option(
            "--prior-samples",
            min=1,
            metavar="N",
            help="Embeddings that the prior makes of a text, of which the one nearest to the text is drawn.",
            show_default="2",
            rich_help_panel=PICTURES,
        ),
    ] = None,
    to: o.To = None,
    renames: o.Map = None,
    from_: o.From = None,
    image_root: o.ImageRoot = None,
    head: o.Head = None,
    max_bad: o.MaxBad = "0",
    rejects: o.Rejects = None,
    seed: o.Seed = 0,
    device: o.Device = "auto",
    precision: o.Precision = "fp32",
    batch_size: Annotated[
        int | None,
        Option(
            "--batch-size",
            min=1,
            metavar="N",
            help="Images or texts a forward pass.",
            show_default="64; of a diffusion model 4",
        ),
    ] = None,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = 0,
) -> None:
    """Describe pictures in words, or draw pictures of words.

    --caption writes each row of the input with `caption_generated`, what the captioner says of its picture, and
    `score`, the mean log-probability of the caption's tokens and of its end. Spaces stand between words of Latin
    script, and not beside Chinese ones. A row whose picture cannot be read is bad. What is written of a row depends
    neither on the others nor on --batch-size; a drawn caption depends on --seed and the row's number.

    Where RUN is a decoder of finetune --task t2i, it draws texts: --clip reads them, --prior makes image embeddings of
    them, RUN pictures of those, and parts that were not trained with one another are refused. -o is a directory: PNGs
    that carry prompt, seed, steps, guidance and the hashes of all parts, and pairs.jsonl with a row for each, which
    keeps the id and the columns of the row that the text is from. The noise that a picture starts from depends on
    --seed and on the row's id, or the place of --text. The same command gives the same bytes; another --batch-size may
    move a pixel by one level of 255. Texts longer than the dual encoder reads are cut, counted and named. Needs
    diffusers, which the extra generate brings.

    A diffusion model in Stable Diffusion's format (model_index.json, unet/, vae/, scheduler/; AltDiffusion's too) draws
    --text, --texts or the first text of each row, guided by --encoder. All of a --seed begin with the same noise. The
    directory -o (pictures/) holds a PNG for each, which says what made it, and pairs.jsonl, whose rows are pairs with
    `generated_by`; of prompts in languages also grid.png and grid.svg, the pictures with their prompts. A prompt that
    is longer than what the encoder reads is named. Nothing is downloaded, and weights are read from safetensors alone.
    """
    from vlcli.commands import _generate_diffusion as diffusion
    from vlcli.commands._console import Console
    from vlcli.models.quickcheck import find_checkpoint

    named = list(inputs or [])
    if not named:
        raise UsageError("no checkpoint", remedy="vlcli generate RUN --caption FILE...")
    run = named.pop(0)
    console = Console("generate", quiet=quiet, verbose=verbose)
    of_captions: dict[str, Any] = {"--caption": caption, "--decode": decode, "--beams": beams}
    of_captions |= {"--min-length": min_length, "--max-length": max_length, "--top-p": top_p}
    of_captions |= {"--temperature": temperature, "--repetition-penalty": repetition_penalty}
    of_captions |= {"--format": format, "--to": to, "--image-root": image_root, "--rejects": rejects}
    of_captions |= {"--max-bad": max_bad != "0"}
    of_parts: dict[str, Any] = {"--prior": prior, "--clip": clip, "--prior-steps": prior_steps}
    of_parts |= {"--prior-guidance": prior_guidance, "--prior-samples": prior_samples}
    if diffusion.is_diffusion(run):
        diffusion.refuse(of_captions | of_parts, "a diffusion model")
        diffusion.pictures(
            run,
            kv,
            encoder,
            diffusion.Asked(text, texts, o.gather(named, files_from), from_, renames, langs, head),
            output,
            console,
            seed=seed,
            steps=50 if steps is None else steps,
            guidance=7.5 if guidance is None else guidance,
            device=device,
            precision=precision,
            batch_size=batch_size,
            force=force,
        )
        return
    find_checkpoint(run)
    of_diffusion = {"--texts": texts, "--langs": langs, "--kv": kv, "--encoder": encoder}
    diffusion.refuse(of_diffusion, "this checkpoint, but for a diffusion model")
    from vlcli.commands import _generate_pictures as pictures

    way = {"steps": steps, "guidance": guidance}
    way |= {"prior_steps": prior_steps, "prior_guidance": prior_guidance, "prior_samples": prior_samples}
    if not caption and pictures.draws(run, text):
        diffusion.refuse(of_captions, "a decoder")
        pictures.pictures(
            run,
            prior,
            clip,
            pictures.Prompts(text, o.gather(named, files_from), from_, o.parse_map(renames), head),
            output,
            {"seed": seed, **way},
            console,
            device=device,
            precision=precision,
            batch_size=batch_size or 64,
            force=force,
        )
        return
    diffusion.refuse({"--text": text, "--steps": steps, "--guidance": guidance} | of_parts, "captions")
    if not caption:
        raise UsageError("nothing says what to generate", remedy="--caption describes the pictures of rows")

    from vlcli.commands import _generate_captions as captions

    decoding = captions.decoding(
        decode, beams, min_length, max_length, top_p, temperature, repetition_penalty, seed
    )
    captions.captions(
        run,
        captions.Rows(o.gather(named, files_from), from_, o.parse_map(renames), image_root, head, max_bad),
        captions.Place(output, format or "rows", to, rejects, force=force),
        decoding,
        console,
        device=device,
        precision=precision,
        batch_size=batch_size or 64,
    )
