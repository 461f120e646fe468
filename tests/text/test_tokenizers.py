"""Ids equal transformers' own tokenizers; learnt vocabularies are the same each time and hold what they must."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from vlcli.errors import InputError, UsageError
from vlcli.text.tokenizers import MERGES, clip_bpe, load_tokenizer
from vlcli.text.vocabulary import learn
from vlcli.text.wordpiece import NAME_TOKEN, SPECIALS, VOCABULARY

RAW = Path(__file__).parents[2] / "examples/emoji/raw.parquet"
ODD = [
    "",
    " ",
    "a",
    "Don't stop!! it's 3:45pm…",
    "İstanbul ΣΑΣ ﬁ",
    "👨‍👩‍👧‍👦 😀",
    "　全角，标点。",
    "a\tb\nc  d",
    "x" * 300,
]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    frame = pl.read_parquet(RAW, columns=["name", "name_en", "name_ru", "name_ar", "name_ja", "name_ko"])
    return ODD + pl.concat([column.unique(maintain_order=True) for column in frame]).drop_nulls().to_list()


@pytest.fixture(scope="module")
def merges() -> Path:
    import open_clip

    return Path(open_clip.__file__).parent / MERGES


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, merges) -> Path:
    """CLIP's tokenizer as transformers keeps it."""
    folder = tmp_path_factory.mktemp("clip")
    lines = gzip.decompress(merges.read_bytes()).decode().split("\n")[: 49152 - 256 - 2 + 1]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines[1:]]) + "\n", encoding="utf-8")
    vocabulary = clip_bpe(merges).get_vocab()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_clip_bpe_is_transformers_and_open_clips(texts, merges, clip_folder):
    import open_clip
    from transformers import CLIPTokenizer

    ids, cut = load_tokenizer("clip-bpe").encode(texts, 20)
    theirs = CLIPTokenizer.from_pretrained(str(clip_folder))
    assert theirs.vocab_size == 49408
    assert ids == theirs(texts, truncation=True, max_length=20)["input_ids"]
    assert cut == sum(len(row) > 20 for row in theirs(texts)["input_ids"]) > 0
    for other in (str(merges), str(clip_folder), str(clip_folder / "merges.txt")):
        assert load_tokenizer(other).encode(texts, 20)[0] == ids
    plain = [text for text in texts if text.isascii()]
    padded = open_clip.get_tokenizer("ViT-B-32")(plain, context_length=20).tolist()
    for row, other in zip(load_tokenizer("clip-bpe").encode(plain, 20)[0], padded, strict=True):
        assert row == other[: len(row)]
        assert not any(other[len(row) :])


def test_a_bert_folder_is_read_by_its_rules(texts, tmp_path):
    from transformers import BertTokenizer

    shutil.copy(VOCABULARY, tmp_path / "vocab.txt")
    theirs = BertTokenizer(str(VOCABULARY))(texts, truncation=True, max_length=16)["input_ids"]
    for name in ("wordpiece-zh", str(tmp_path), str(tmp_path / "vocab.txt")):
        ids, cut = load_tokenizer(name).encode(texts, 16)
        assert ids == theirs
        assert cut > 0
        assert {row[-1] for row in ids} == {102}
    cased = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(cased))
    [row], _ = load_tokenizer(str(tmp_path)).encode(["iPod ipod"], 16)
    expected = BertTokenizer.from_pretrained(str(tmp_path))("iPod ipod")["input_ids"]
    assert row == expected != load_tokenizer("wordpiece-zh").encode(["iPod ipod"], 16)[0][0]


def test_a_sentencepiece_like_pipeline_with_a_normaliser_of_its_own(texts, tmp_path):
    """XLM-R's kind: Unigram behind ▁, NFKC, <s> … </s>."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=4000, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts[:4000], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(5)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(str(tmp_path))
    ids, _ = ours.encode(texts, 12)  # what the file says on padding and length is another's wish
    assert ids == theirs(texts, truncation=True, max_length=12, padding=False)["input_ids"]
    [row], _ = ours.encode(["草地上有一只狐狸"], 50)
    [[places]] = ours.find(["草地上有一只狐狸"], [row], ["狐狸"])
    assert "".join(tokenizer.id_to_token(row[i]) for i in places) == "狐狸"


@pytest.mark.parametrize("name", ["wordpiece-zh", "clip-bpe"])
def test_labels_are_found_where_they_stand(name):
    tokenizer = load_tokenizer(name)
    texts = ["狐狸和狐狸 a fox", "草地", "一只白色的狐狸", "狐狸"]
    labels = ["狐狸", "狐狸", "狐狸", ""]
    ids, _ = tokenizer.encode(texts, 30)
    first, *others = tokenizer.find(texts, ids, labels)
    assert len(first) == 2
    assert first[0][0] == 1
    assert [len(found) for found in others] == [0, 1, 0]
    if name == "wordpiece-zh":
        assert first == [[1, 2], [4, 5]]
    assert all(place == list(range(place[0], place[-1] + 1)) for place in first)
    last = others[1][0]
    assert last[-1] == len(ids[2]) - 2  # the text ends with it
    # what is cut off is not found, nor is half of it
    short, _ = tokenizer.encode(texts[2:3], last[-1] + 1)
    assert tokenizer.find(texts[2:3], short, labels[2:3]) == [[]]
    with pytest.raises(UsageError, match="no room"):
        load_tokenizer("clip-bpe").encode(["a"], 2)


PROGRAM = """
import sys; from pathlib import Path; import polars as pl; from vlcli.text.vocabulary import learn
texts = pl.read_parquet(sys.argv[1], columns=["name_en"])["name_en"].to_list()
for kind in ("wordpiece", "bpe"):
    learn(kind, lambda: texts, 1500, Path(sys.argv[2]) / kind)
"""


def test_a_vocabulary_is_the_same_in_every_process(tmp_path):
    texts = pl.read_parquet(RAW, columns=["name_en"])["name_en"].to_list()
    subprocess.run([sys.executable, "-c", PROGRAM, RAW, tmp_path / "a"], check=True)
    for kind in ("wordpiece", "bpe"):
        assert learn(kind, lambda: texts, 1500, tmp_path / "b" / kind) == 1500
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_learnt_vocabulary_knows_all_letters_and_the_name_token(kind, texts, tmp_path):
    from transformers import PreTrainedTokenizerFast

    corpus = [*texts, f"{NAME_TOKEN}的狗", "\ud800 lone"[1:]]
    size = learn(kind, lambda: corpus, 9000, tmp_path)
    pieces = (tmp_path / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert size == len(pieces) == len(set(pieces)) <= 9000
    if kind == "wordpiece":
        assert tuple(pieces[:5]) == SPECIALS
        assert "狐" in pieces
    ours = load_tokenizer(str(tmp_path))
    ids, _ = ours.encode(corpus, 400)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert ids == theirs(corpus)["input_ids"]
    unknown = pieces.index("[UNK]") if kind == "wordpiece" else -1
    assert sum(unknown in row for row in ids) == (1 if kind == "wordpiece" else 0)  # a word of 300 letters
    [named], _ = ours.encode([f"{NAME_TOKEN}的狗"], 400)
    assert named[1] == pieces.index(NAME_TOKEN)
    whole = [row for row in ids if len(row) == 3]
    assert len(whole) > 800  # many of the texts are one piece by now
    with pytest.raises(UsageError, match="--vocab-size 50: the"):
        learn(kind, lambda: corpus, 50, tmp_path)
    with pytest.raises(InputError, match="no text"):
        learn(kind, lambda: [], 9000, tmp_path)


def test_what_is_no_tokenizer_is_told(tmp_path, merges, monkeypatch):
    with pytest.raises(UsageError, match="no such tokenizer; there are wordpiece-zh, clip-bpe"):
        load_tokenizer("wordpeace")
    with pytest.raises(InputError, match="transformers reads no tokenizer here"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "cut.txt.gz").write_bytes(merges.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a list of merges"):
        load_tokenizer(str(tmp_path / "cut.txt.gz"))
    (tmp_path / "merges.txt").write_text("#version\na b\n")
    with pytest.raises(InputError, match="not CLIP's list of 48,894 merges"):
        load_tokenizer(str(tmp_path / "merges.txt"))
    monkeypatch.setattr("vlcli.text.tokenizers.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install open_clip_torch"):
        load_tokenizer("clip-bpe")
