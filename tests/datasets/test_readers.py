"""Every reader on lines as they are published: quoted ones where they may be, else the same format with other words."""

import gzip
import json
from pathlib import Path

import pytest
from dataset_cases import base64_table, emoji, json_lines, muge, pairs, pictures, read, write

from vlcli.datasets.flickr_cn import joined
from vlcli.datasets.table import load_dataset, open_dataset
from vlcli.evaluation.gallery import Gallery
from vlcli.images.resolve import ImageReader


def test_muge_has_several_images_a_query_and_images_without_any(tmp_path):
    muge(tmp_path)
    rows, reading = read("muge", tmp_path)
    assert reading.split == "val"
    assert pairs(rows[:3]) == [
        ("1076345", "高级感托特包斜挎"),
        ("517602", "高级感托特包斜挎"),
        ("517602", "托特包"),
    ]
    assert [row.text_id for row in rows[:3]] == [8428, 8428, 8429]
    assert (reading.alone, reading.loose) == (6, 0)
    assert ImageReader().read(rows[1].image) == emoji()[1][0]
    gallery = Gallery.of(load_dataset(open_dataset("muge", [str(tmp_path)])))
    assert len(gallery.image_ids) == 12
    assert gallery.texts == ["高级感托特包斜挎", "托特包", "红色连衣裙"]
    shown = dict(zip(gallery.image_ids, gallery.positives, strict=True))
    assert (shown["517602"], shown["2003"], shown["2009"]) == ({0, 1}, {1}, set())


@pytest.mark.parametrize(("split", "only"), [("val", False), ("val", True), ("test", False), ("test", True)])
def test_a_query_of_several_images_counts_once_and_what_is_no_pair_counts_too(tmp_path, split, only):
    muge(tmp_path)
    reading = open_dataset("muge", [str(tmp_path)], split=split)
    list(reading.rows(pairs_only=only))
    assert (len(reading.image_ids), reading.texts) == (12, 4)


def test_a_query_of_muges_test_has_no_image_and_its_images_no_query(tmp_path):
    muge(tmp_path)
    rows, reading = read("muge", tmp_path, split="test")
    assert [row.image for row in rows[:4]] == [None] * 4
    assert (reading.alone, reading.loose, reading.texts) == (12, 4, 4)
    gallery = Gallery.of(load_dataset(open_dataset("muge", [str(tmp_path)], split="test")))
    assert (len(gallery.image_ids), len(gallery.texts)) == (12, 3)
    assert not any(gallery.positives)


@pytest.mark.parametrize("name", ["muge", "flickr30k-cn", "coco-cn"])
def test_chinese_clips_form_of_three_sets(tmp_path, name):
    base64_table(tmp_path / "valid_imgs.tsv", [1076345, 517602], urlsafe=False)
    line = {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}
    blind = {"text_id": 1, "text": "包", "image_ids": []}
    json_lines(tmp_path / "valid_texts.jsonl", [line, blind])
    rows, _ = read(name, tmp_path, split="valid")
    assert pairs(rows) == [("1076345", line["text"]), ("517602", line["text"]), (None, "包")]


@pytest.mark.parametrize(
    ("said", "read_as"),
    [
        ("一个:m 男人:n 戴:v 着:uzhe 帽子:n", "一个男人戴着帽子"),
        ("穿着粉红色连衣裙的孩子爬上楼梯，进入一个入口。", "穿着粉红色连衣裙的孩子爬上楼梯，进入一个入口。"),
        ("时间:n 12:30:m ，:wd ::w", "时间12:30，:"),
        ("New:nz York:nz 的:ude1 街道:n", "New York的街道"),
        ("招牌 上 写 着 a:b", "招牌上写着a:b"),
    ],
)
def test_tags_and_spaces_are_taken_off_words(said, read_as):
    assert joined(said) == read_as


def test_flickr30k_cn_as_published(tmp_path):
    name = "flickr30kzhmbosontest"
    write(
        tmp_path / name / "TextData" / f"seg.{name}.caption.txt",
        "1007129816#zhm#0 一个:m 男人:n 戴:v 着:uzhe 帽子:n\n1007129816#zhm#1 橙色:n 帽子:n\n",
    )
    write(tmp_path / name / "ImageSets" / f"{name}.txt", "1007129816\n1009434119\n")
    pictures(tmp_path / "flickr30k-images", ["1007129816.jpg", "1009434119.jpg"])
    rows, reading = read("flickr30k-cn", tmp_path)
    assert pairs(rows) == [
        ("1007129816", "一个男人戴着帽子"),
        ("1007129816", "橙色帽子"),
        ("1009434119", None),
    ]
    assert rows[0].id == "1007129816#zhm#0"
    assert reading.alone == 1
    assert len(reading.remarks()) == 2
    assert "flickr30k-cn test has 2 texts here, and 5,000 as it was published" in reading.remarks()
    named, _ = read(
        "flickr30k-cn", tmp_path / name / "TextData" / f"seg.{name}.caption.txt", image_root=tmp_path
    )
    assert named[:2] == rows[:2]


def test_flickr8k_cn_has_its_suffix_in_the_id(tmp_path):
    quoted = (
        "1000268201_693b08cb0e.jpg#zhb#0 穿着粉红色连衣裙的孩子爬上楼梯，进入一个入口。\n"
        "1000268201_693b08cb0e.jpg#zhb#1 一个女孩走进一个木结构。\n"
    )
    write(tmp_path / "TextData" / "seg.flickr8kzhbJanbosontrain.caption.txt", quoted)
    pictures(tmp_path, ["Flicker8k/1000268201_693b08cb0e.jpg"])
    rows, _ = read("flickr8k-cn", tmp_path, split="train")
    assert [row.text for row in rows] == [
        "穿着粉红色连衣裙的孩子爬上楼梯，进入一个入口。",
        "一个女孩走进一个木结构。",
    ]
    assert {row.image_id for row in rows} == {"1000268201_693b08cb0e"}


def test_flickr30k_cna_has_blank_lines(tmp_path):
    write(tmp_path / "test/flickr30k_cna_test.txt", "6228559981#0\t一个人\n\n6228559981#1\t另 一个人\n")
    pictures(tmp_path, ["Flickr30k-images/6228559981.jpg"])
    rows, _ = read("flickr30k-cna", tmp_path)
    assert pairs(rows) == [("6228559981", "一个人"), ("6228559981", "另 一个人")]
    (tmp_path / "test/flickr30k_cna_test.txt").rename(tmp_path / "test/flickr30k_cn_test.txt")
    assert read("flickr30k-cna", tmp_path)[0] == rows


def coco_cn(folder: Path) -> None:
    stems = ("COCO_val2014_000000217153", "COCO_train2014_000000128475", "COCO_val2014_000000498374")
    write(folder / "coco-cn_test.txt", "".join(f"{stem}\n" for stem in stems))
    lines = (
        "COCO_val2014_000000217153#0\t一个男人和一个女人穿着军装玩手机。\n"
        "COCO_train2014_000000128475#0\t三个甜甜圈旁边放着三种不同口味的蘸酱\n"
        "COCO_val2014_000000000001#0\t不在测试集里\n"
    )
    write(folder / "imageid.human-written-caption.txt", lines)
    five = "".join(f"COCO_val2014_000000217153#{k}\t译文{k}\n" for k in range(5))
    write(folder / "imageid.manually-translated-caption.txt", five)
    pictures(folder / "images", [f"{stem}.jpg" for stem in stems])


def test_coco_cn_by_people_and_translated(tmp_path):
    coco_cn(tmp_path)
    rows, reading = read("coco-cn", tmp_path)
    assert pairs(rows) == [
        ("COCO_val2014_000000217153", "一个男人和一个女人穿着军装玩手机。"),
        ("COCO_train2014_000000128475", "三个甜甜圈旁边放着三种不同口味的蘸酱"),
        ("COCO_val2014_000000498374", None),
    ]
    assert reading.left_out() == ["1 images that no text describes"]
    translated, _ = read("coco-cn-translated", tmp_path)
    assert [row.text for row in translated if row.text] == [f"译文{k}" for k in range(5)]


def test_a_picture_of_coco_is_found_under_its_later_name(tmp_path):
    coco_cn(tmp_path)
    old = tmp_path / "images" / "COCO_val2014_000000217153.jpg"
    old.rename(tmp_path / "images" / "000000217153.jpg")
    assert read("coco-cn", tmp_path)[0][0].image.endswith("/000000217153.jpg")


def test_aic_icc_is_split_behind_its_first_ten_thousand(tmp_path, monkeypatch):
    monkeypatch.setattr("vlcli.datasets.aic_icc.REPORTED", 2)
    images = [
        {"url": "http://x/1", "image_id": f"{k}.jpg", "caption": [f"图{k} 第{n}句" for n in range(5)]}
        for k in range(3)
    ]
    file = tmp_path / "caption_validation_annotations_20170910.json"
    write(file, json.dumps(images))
    pictures(tmp_path / "caption_validation_images_20170910", ["0.jpg", "1.jpg", "2.jpg"])
    test, _ = read("aic-icc", tmp_path)
    val, _ = read("aic-icc", tmp_path, split="val")
    assert (len(test), {row.image_id for row in test}) == (10, {"0", "1"})
    assert (len(val), {row.image_id for row in val}) == (5, {"2"})


@pytest.mark.parametrize(("name", "file"), [("icr", "long_itr"), ("iqr", "short_itr")])
def test_icr_and_iqr_count_the_base_name_alone(tmp_path, name, file):
    json_lines(
        tmp_path / f"val/{file}_val.json", [{"text": "一 只猫", "image_path": "/data/images/ab/cat.jpg"}]
    )
    pictures(tmp_path, ["IQR_IQM_ICR_ICM_images/cat.jpg"])
    rows, _ = read(name, tmp_path)
    assert pairs(rows) == [("cat", "一 只猫")]
    assert rows[0].label is None


@pytest.mark.parametrize(("name", "file"), [("icm", "long_itm"), ("iqm", "short_itm")])
def test_icm_and_iqm_have_labels(tmp_path, name, file):
    lines = [{"text": "猫", "image_path": "x/cat.jpg", "label": k} for k in (1, 0, "0")]
    json_lines(tmp_path / f"val/{file}_val.json", lines)
    pictures(tmp_path, ["cat.jpg"])
    assert [row.label for row in read(name, tmp_path)[0]] == [1, 0, 0]


def karpathy(file: Path, splits: str) -> Path:
    images = [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{k:012}.jpg",
            "split": split,
            "sentids": [2 * k, 2 * k + 1],
            "sentences": [
                {"raw": f"A cat, {k}, and a dog. ", "sentid": 2 * k, "tokens": ["a"]},
                {"raw": f"Another {k}", "sentid": 2 * k + 1, "tokens": ["a"]},
            ],
        }
        for k, split in enumerate(splits.split())
    ]
    return write(file, json.dumps({"images": images, "dataset": "coco"}))


def test_karpathys_train_has_the_left_over_images_too(tmp_path):
    karpathy(tmp_path / "dataset_coco.json", "train restval val test")
    pictures(tmp_path / "val2014", [f"COCO_val2014_{k:012}.jpg" for k in range(4)])
    train, _ = read("coco", tmp_path, split="train")
    assert [row.id for row in train] == ["0", "1", "2", "3"]
    test, _ = read("coco", tmp_path)
    assert pairs(test) == [
        ("COCO_val2014_000000000003", "A cat, 3, and a dog."),
        ("COCO_val2014_000000000003", "Another 3"),
    ]


def test_cocos_own_captions_join_two_lists(tmp_path):
    document = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 7, "caption": "one"},
            {"id": 2, "image_id": 7, "caption": "two\n"},
        ],
    }
    write(tmp_path / "captions_val2014.json", json.dumps(document))
    pictures(tmp_path, ["a.jpg", "b.jpg"])
    rows, _ = read("coco", tmp_path, split="val2014")
    assert pairs(rows) == [("a", "one"), ("a", "two"), ("b", None)]


def test_clip_benchmarks_lines_have_commas(tmp_path):
    write(
        tmp_path / "flickr30k_test_karpathy.txt",
        "image,caption\n1007129816.jpg,A man, in a hat .\n1.jpg,Dog\n",
    )
    write(tmp_path / "flickr30k_test_zh.txt", "image,caption\n1007129816.jpg,一个:m 男人:n\n")
    pictures(tmp_path, ["1007129816.jpg", "1.jpg"])
    assert pairs(read("flickr30k", tmp_path)[0]) == [("1007129816", "A man, in a hat ."), ("1", "Dog")]
    assert pairs(read("flickr30k-cn", tmp_path)[0]) == [("1007129816", "一个男人")]


def zipped(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def multi30k(folder: Path) -> None:
    names = ["1007129816.jpg", "1009434119.jpg"]
    for file in ("task1/image_splits/test_2016_flickr.txt", "task2/image_splits/test_2016_images.txt"):
        write(folder / file, "".join(f"{name}\n" for name in names))
    for lang in ("en", "de"):
        for k in range(1, 6):
            zipped(folder / f"task2/raw/test_2016.{k}.{lang}.gz", [f"{lang} {k} {n}" for n in range(2)])
    for lang in ("en", "de", "fr", "cs"):
        zipped(folder / f"task1/raw/test_2016_flickr.{lang}.gz", [f"{lang} {n}" for n in range(2)])
    pictures(folder / "images", names)


def test_multi30k_has_five_captions_in_two_languages_and_one_in_two(tmp_path):
    multi30k(tmp_path)
    rows, _ = read("multi30k", tmp_path)
    counts = {lang: sum(row.lang == lang for row in rows) for lang in ("en", "de", "fr", "cs")}
    assert counts == {"en": 10, "de": 10, "fr": 2, "cs": 2}
    assert pairs(rows[:3]) == [("1007129816", f"en {k} 0") for k in (1, 2, 3)]
    german, reading = read("multi30k", tmp_path, langs=["de"])
    assert {row.lang for row in german} == {"de"}
    assert "10 texts here, and 5,000" in reading.remarks()[1]
    once, _ = read("multi30k-task1", tmp_path, langs=["en", "cs"])
    assert pairs(once) == [
        (i, f"{lang} {n}") for lang in ("en", "cs") for n, i in enumerate(("1007129816", "1009434119"))
    ]


def test_multi30ks_images_of_coco_carry_the_captions_number(tmp_path):
    write(tmp_path / "image_splits/test_2017_mscoco.txt", "COCO_train2014_000000117071.jpg#367178\n")
    zipped(tmp_path / "raw/test_2017_mscoco.en.gz", ["A cat"])
    pictures(tmp_path, ["COCO_train2014_000000117071.jpg"])
    rows, _ = read("multi30k", tmp_path, split="test_2017_mscoco", langs=["en"])
    assert pairs(rows) == [("COCO_train2014_000000117071", "A cat")]


def xtd(folder: Path, count: int = 2) -> None:
    names = [f"COCO_train2014_{k:012}.jpg" for k in range(count)]
    write(folder / "XTD10/test_image_names.txt", "\n".join(names))  # no newline at the end, as published
    write(folder / "XTD10/test_1kcaptions_zh.txt", "\n".join(emoji()[k % 24][1] for k in range(count)))
    write(folder / "STAIR/test_1kcaptions_jp.txt", "".join(f"猫{k}\n" for k in range(count)))
    pictures(folder / "images", names)


def test_xtds_last_line_has_no_end_and_japanese_is_jp(tmp_path):
    xtd(tmp_path)
    rows, _ = read("xtd", tmp_path)
    assert [(row.lang, row.text) for row in rows] == [
        ("zh", emoji()[0][1]),
        ("zh", emoji()[1][1]),
        ("ja", "猫0"),
        ("ja", "猫1"),
    ]


def test_crossmodal_keeps_all_captions_of_an_image(tmp_path):
    line = {
        "image/key": "000411001ff7dd4f",
        "image/locale": "quz",
        "en": {"caption": ["A cat", "A black cat"], "caption/tokenized": ["a cat"]},
        "zh": {"caption": ["一只猫"]},
    }
    json_lines(tmp_path / "captions.jsonl", [line])
    pictures(tmp_path, ["images/000411001ff7dd4f.jpg"])
    rows, _ = read("crossmodal-3600", tmp_path)
    assert [(row.lang, row.text) for row in rows] == [
        ("en", "A cat"),
        ("en", "A black cat"),
        ("zh", "一只猫"),
    ]
    assert [row.text for row in read("crossmodal-3600", tmp_path, langs=["zh"])[0]] == ["一只猫"]
