from __future__ import annotations

from pathlib import Path

import pytest

from vlcli.errors import InputError, UsageError
from vlcli.text.labels import load_labels


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "labels.zh.txt"
    file.write_bytes(text.encode())
    return file


def test_a_name_per_line_is_an_integer_label(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path, "\ufeff丁鲷\r\n太阳镜\n金鱼\n太阳镜\n\n"))
    assert labels.name == "labels.zh.txt"
    assert labels.names == {0: "丁鲷", 1: "太阳镜", 2: "金鱼", 3: "太阳镜"}
    assert labels.duplicates == {"太阳镜": [1, 3]}
    assert labels.indices([3, "0"]) == [3, 0]
    for label in (4, -1, "金鱼", "1.0"):
        with pytest.raises(InputError, match=r"has no name in labels\.zh\.txt; its 4 labels are 0 to 3"):
            labels.index(label)


def test_key_tab_name_is_a_string_label(tmp_path: Path) -> None:
    labels = load_labels(write(tmp_path, "n01440764\t丁鲷\nn01443537\t金鱼\n7\t七\n"))
    assert labels.keyed
    assert labels.duplicates == {}
    assert list(labels.names) == ["n01440764", "n01443537", "7"]
    assert labels.indices(["n01443537", 7]) == [1, 2]
    with pytest.raises(InputError, match="label 'n00' has no name"):
        labels.index("n00")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("丁鲷\n\n金鱼\n", r"labels\.zh\.txt:2: an empty name"),
        ("a\t丁鲷\n金鱼\n", r":2: no tab, but the first line has one"),
        ("丁鲷\na\t金鱼\n", r":2: a tab, but the first line has none"),
        ("a\t丁鲷\na\t金鱼\n", r":2: the key 'a' a second time"),
        ("a\t\n", r":1: an empty name"),
        ("\n", r"txt: no labels"),
    ],
)
def test_bad_label_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_labels(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such label file"):
        load_labels(tmp_path / "none.txt")
