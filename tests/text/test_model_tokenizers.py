"""A model's own tokenizer: ids as the library gives them, padded and cut, kept by a checkpoint, words found again."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vlcli.errors import UsageError
from vlcli.text.model_tokenizers import Pipeline, open_tokenizer, refuse_foreign, saved_tokenizer
from vlcli.text.vocabulary import learn
from vlcli.text.wordpiece import WordPiece

TEXTS = ["a photo of a dog", "Hello, World!", "", "狐狸在雪地里", "dogs dogs dogs " * 20]


def sentencepiece():
    """A Unigram tokenizer of XLM-R's kind: <s> 0, <pad> 1, </s> 2, words marked by ▁."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=specials, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(
        [*TEXTS, "a red fox, a dog and another dog", "狐狸和狗", "雪地", "雪"] * 4, trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


@pytest.fixture(params=["clip", "unigram"])
def tokenizer(request):
    if request.param == "clip":
        return open_tokenizer("clip-bpe")
    return Pipeline(sentencepiece(), padding_id=1)


def test_clips_ids_are_open_clips():
    import open_clip

    texts = ["a photo of a dog", "Hello,  World! it's 42", "", "naïve café — 狐狸", "dogs " * 100]
    theirs = open_clip.tokenize(texts)
    ids, mask = open_tokenizer("clip-bpe").encode(texts, 77)
    assert ids.shape == (5, 77)
    assert ids.tolist() == theirs.tolist()  # both pad with 0
    assert mask.sum(1).tolist() == [7, 10, 2, len([n for n in theirs[3] if n]), 77]


def test_rows_are_padded_and_cut_and_keep_their_ends(tokenizer):
    ids, mask = tokenizer.encode(TEXTS, length=9)
    assert ids.shape == mask.shape == (5, 9)
    for row, seen, text in zip(ids, mask, TEXTS, strict=True):
        whole = [tokenizer.cls_id, *tokenizer.content(text), tokenizer.sep_id]
        wanted = whole if len(whole) <= 9 else [*whole[:8], tokenizer.sep_id]
        assert row[seen].tolist() == wanted
        assert set(row[~seen].tolist()) <= {tokenizer.pad_id}
        assert seen.tolist() == sorted(seen.tolist(), reverse=True)
    assert tokenizer.encode([""], 9)[0].tolist() == [[tokenizer.cls_id, tokenizer.sep_id]]
    assert tokenizer.encode([], 9)[0].shape == (0, 0)
    with pytest.raises(UsageError, match="no room beside 2 special tokens"):
        tokenizer.encode(["a"], 2)


def test_a_checkpoint_keeps_it(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = saved_tokenizer(tmp_path, padding_id=tokenizer.pad_id)
    for field in ("vocab_size", "pad_id", "cls_id", "sep_id", "special_ids"):
        assert getattr(again, field) == getattr(tokenizer, field)
    for mine, theirs in zip(again.encode(TEXTS, 20), tokenizer.encode(TEXTS, 20), strict=True):
        assert mine.tolist() == theirs.tolist()


def test_transformers_opens_what_is_kept(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    ids, mask = tokenizer.encode(TEXTS, 20)
    for text, row, seen in zip(TEXTS, ids, mask, strict=True):
        assert theirs(text, truncation=True, max_length=20)["input_ids"] == row[seen].tolist()


def test_words_are_found_by_what_they_spell():
    clip = open_tokenizer("clip-bpe")
    ids = clip.encode(["a photo of a hot dog and a hotdog"], 77)[0][0]
    assert clip.find(ids, "hot dog") == [[5, 6]]
    assert clip.find(ids, "Hotdog") == [[9]]
    assert clip.find(ids, "a") == [[1], [4], [8]]
    assert clip.find(ids, "cat") == []
    assert clip.find(ids, "") == []
    unigram = Pipeline(sentencepiece(), padding_id=1)
    for text, part, count in (
        ("a red dog and a dog", "dog", 2),
        ("狐狸在雪地里", "雪地", 1),
        ("dog", "dog", 1),
    ):
        ids = unigram.encode([text], 40)[0][0].tolist()
        places = unigram.find(ids, part)
        assert len(places) == count
        for place in places:
            assert unigram._tokenizer.decode([ids[i] for i in place]).strip() == part
            assert not {ids[i] for i in place} & unigram.special_ids
            assert place == list(range(place[0], place[-1] + 1))


def test_a_learnt_wordpiece_is_read_by_our_own_rules(tmp_path):
    """It lies there as vocab.txt and as tokenizer.json; ours cannot be made to read a special token in a text."""
    learn("wordpiece", lambda: ["[SEP] a dog and a fox", "a dog"], 60, tmp_path / "wordpiece")
    found = open_tokenizer(str(tmp_path / "wordpiece"))
    assert isinstance(found, WordPiece)
    assert found.sep_id not in found.content("[SEP]")
    learn("bpe", lambda: ["a dog and a fox", "a dog"], 300, tmp_path / "bpe")
    found = open_tokenizer(str(tmp_path / "bpe"))
    assert isinstance(found, Pipeline)
    found.save(tmp_path / "kept")
    assert not (tmp_path / "kept" / "vocab.txt").exists()


@pytest.mark.parametrize("change", [{"lowercase": False}, {"strip_accents": False}, {"type": "NFC"}])
def test_a_vocabulary_of_other_rules_is_not_read_as_ours(tmp_path, change):
    WordPiece.load().save(tmp_path)
    file = tmp_path / "tokenizer.json"
    assert isinstance(open_tokenizer(str(tmp_path)), WordPiece)
    pipeline = json.loads(file.read_text(encoding="utf-8"))
    rules = {"type": "NFC"} if "type" in change else {**pipeline["normalizer"], **change}
    file.write_text(json.dumps({**pipeline, "normalizer": rules}), encoding="utf-8")
    assert isinstance(open_tokenizer(str(tmp_path)), Pipeline)


def test_what_is_not_there_and_what_is_too_large():
    with pytest.raises(UsageError, match=r"text\.tokenizer align-100k: no such tokenizer"):
        open_tokenizer("align-100k")
    with pytest.raises(UsageError, match=r"pass --init text=DIR"):
        open_tokenizer("init")
    with pytest.raises(UsageError, match=r"the tokenizer has 49408 tokens, text\.vocabulary 49407"):
        refuse_foreign(open_tokenizer("clip-bpe"), 49407)
    refuse_foreign(open_tokenizer("clip-bpe"), 49408)
