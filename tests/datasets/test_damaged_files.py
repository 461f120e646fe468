"""One clear line for whatever is wrong: the file, its line, the cause."""

import gzip
import json
import re

import pytest
from dataset_cases import json_lines, muge, pictures, read, write
from test_readers import coco_cn, karpathy, multi30k, xtd

from vlcli.datasets.files import json_document
from vlcli.datasets.table import open_dataset
from vlcli.errors import InputError, UsageError


def assert_refused(error, name, *paths, match, **how):
    with pytest.raises(error, match=match) as caught:
        read(name, *paths, **how)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        ('{"query_id": 1, "query_text": "包", "item_ids": [1076', r"MR_valid_queries\.jsonl:5: not JSON"),
        ('["query_id"]', r"queries\.jsonl:5: not a JSON object"),
        ('{"query_id": 1, "item_ids": [1]}', r"queries\.jsonl:5: no query_text"),
        ('{"query_id": 1, "query_text": " "}', r"queries\.jsonl:5: query_text is empty"),
        ('{"query_id": 1, "query_text": 5}', r"queries\.jsonl:5: query_text is not a string"),
        ('{"query_id": 1, "query_text": "包", "item_ids": 5}', r"queries\.jsonl:5: item_ids is not a list"),
        (
            '{"query_id": 1, "query_text": "包", "item_ids": [5]}',
            r"queries\.jsonl:5: its image 5 is not in .*tsv",
        ),
    ],
)
def test_a_damaged_query(tmp_path, damage, match):
    muge(tmp_path)
    with (tmp_path / "MR_valid_queries.jsonl").open("a", encoding="utf-8") as file:
        file.write(damage)
    assert_refused(InputError, "muge", tmp_path, match=match)


def test_a_damaged_table_of_pictures(tmp_path):
    muge(tmp_path)
    table = tmp_path / "MR_valid_imgs.tsv"
    whole = table.read_text()
    table.write_text(whole + "77 no tab\n")
    assert_refused(InputError, "muge", tmp_path, match=r"imgs\.tsv:13: no tab")
    table.write_text(whole + whole.splitlines()[0])
    assert_refused(InputError, "muge", tmp_path, match=r"imgs\.tsv:13: image 1076345 for the second time")
    table.unlink()
    assert_refused(UsageError, "muge", tmp_path, match=r"no MR_valid_imgs\.tsv beside it")


def test_captions_that_do_not_hold_to_their_format(tmp_path):
    pictures(tmp_path, ["1.jpg"])
    for name, file, line in (
        ("flickr30k-cn", "seg.flickr30kzhmbosontest.caption.txt", "1#zhm#0"),
        ("flickr30k-cn", "seg.flickr30kzhmbosontest.caption.txt", "1 没有井号"),
        ("flickr30k-cna", "flickr30k_cna_test.txt", "1#1 没有制表符"),
        ("flickr30k", "flickr30k_test_karpathy.txt", "1.png,A cat"),
    ):
        good = {"flickr30k-cn": "1#zhm#0 猫:n", "flickr30k-cna": "1#0\t猫", "flickr30k": "1.jpg,A cat"}[name]
        path = write(tmp_path / file, f"{good}\n{line}\n")
        assert_refused(InputError, name, tmp_path, match=rf"{re.escape(file)}:2: not ")
        path.write_bytes(good.encode() + b"\n1#0\t\xff\xfe\n")
        assert_refused(InputError, name, tmp_path, match=rf"{re.escape(file)}:2: not UTF-8 \(byte 5\)")
        path.unlink()


def test_images_that_are_missing(tmp_path):
    coco_cn(tmp_path)
    (tmp_path / "images" / "COCO_train2014_000000128475.jpg").unlink()
    match = r"coco-cn_test\.txt:2: its image COCO_train2014_000000128475\.jpg is not in .*; --image-root DIR"
    assert_refused(InputError, "coco-cn", tmp_path, match=match)
    assert_refused(
        UsageError, "coco-cn", tmp_path, match="no such directory", image_root=tmp_path / "nowhere"
    )


def test_a_document_that_is_cut(tmp_path):
    file = karpathy(tmp_path / "dataset_coco.json", "test")
    pictures(tmp_path, ["COCO_val2014_000000000000.jpg"])
    whole = file.read_text()
    for cut in range(1, len(whole), 37):
        file.write_text(whole[:cut])
        assert_refused(InputError, "coco", tmp_path, match=r"dataset_coco\.json:1: not JSON")
    file.write_text(whole.replace('"raw"', '"rough"', 1))
    assert_refused(InputError, "coco", tmp_path, match=r"image COCO_val2014_0+\.jpg: no raw")
    write(
        tmp_path / "captions_val2014.json",
        json.dumps({"images": [], "annotations": [{"id": 1, "image_id": 3}]}),
    )
    assert_refused(InputError, "coco", tmp_path, match="annotation 1: no image has the id 3", split="val2014")


def test_lines_that_do_not_go_with_the_images(tmp_path):
    xtd(tmp_path)
    captions = tmp_path / "XTD10" / "test_1kcaptions_zh.txt"
    captions.write_text("一\n\n", encoding="utf-8")
    assert_refused(InputError, "xtd", tmp_path, match=r"test_1kcaptions_zh\.txt:2: no caption")
    captions.write_text("一\n二\n三", encoding="utf-8")
    assert_refused(
        InputError, "xtd", tmp_path, match=r"test_1kcaptions_zh\.txt: 3 lines beside the 2 of .*names\.txt"
    )
    assert_refused(UsageError, "xtd", tmp_path, match=r"no test_1kcaptions_ko\.txt", langs=["ko"])


def test_a_gzip_that_is_cut(tmp_path):
    multi30k(tmp_path)
    file = tmp_path / "task2/raw/test_2016.3.de.gz"
    file.write_bytes(file.read_bytes()[:-9])
    assert_refused(
        InputError, "multi30k", tmp_path, match=r"test_2016\.3\.de\.gz:\d: compressed data are damaged or cut"
    )


def test_a_gzip_of_one_document_that_is_cut(tmp_path):
    file = tmp_path / "document.json.gz"
    file.write_bytes(gzip.compress(b'{"annotations": [1, 2, 3]}')[:-9])
    with pytest.raises(InputError, match=r"document\.json\.gz: compressed data are damaged or cut"):
        json_document(str(file))


def test_labels_that_are_neither(tmp_path):
    pictures(tmp_path, ["cat.jpg"])
    json_lines(tmp_path / "long_itm_val.json", [{"text": "猫", "image_path": "cat.jpg", "label": 2}])
    assert_refused(InputError, "icm", tmp_path, match=r"long_itm_val\.json:1: label is 2, not 0 or 1")


def test_what_is_asked_for_and_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="did you mean flickr30k-cna"):
        open_dataset("flicker30k-cna", [str(tmp_path)])
    with pytest.raises(UsageError, match="--split dev2: muge has train, val, test"):
        open_dataset("muge", [str(tmp_path)], split="dev2")
    with pytest.raises(UsageError, match="xtd has no sv"):
        open_dataset("xtd", [str(tmp_path)], langs=["sv"])
    with pytest.raises(UsageError, match="nowhere: no such file"):
        open_dataset("muge", [str(tmp_path / "nowhere")])
    with pytest.raises(UsageError, match="is for matching"):
        open_dataset("icm", [str(tmp_path)], task="retrieval")
    assert_refused(
        UsageError, "muge", tmp_path, match=r"muge: no MR_valid_queries\.jsonl or valid_texts\.jsonl"
    )
    json_lines(tmp_path / "captions.jsonl", [{"image/key": "a", "en": {"caption": ["x"]}}])
    pictures(tmp_path, ["a.jpg"])
    assert_refused(UsageError, "crossmodal-3600", tmp_path, match="no captions in zh", langs=["zh"])
