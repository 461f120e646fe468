"""Pictures in a table of base64: both alphabets, any order, and what is wrong with a line."""

import base64
from pathlib import Path

import pytest

from vlcli.errors import InputError, MissingImage
from vlcli.images.resolve import ImageReader
from vlcli.images.tsv import TsvIndex
from vlcli.records.references import Relocator, split_container

DATA = {"7": b"\xff\xfb\xef" * 5, "8": b"\xfb\xff\x00\x01", "9": b"png"}


@pytest.fixture
def table(tmp_path):
    lines = [
        b"7\t" + base64.urlsafe_b64encode(DATA["7"]),
        b"8\t" + base64.b64encode(DATA["8"]),
        b"",
        b"9\t" + base64.urlsafe_b64encode(DATA["9"]).rstrip(b"="),
    ]
    (tmp_path / "imgs.tsv").write_bytes(b"\r\n".join(lines))
    return tmp_path / "imgs.tsv"


def test_both_alphabets_of_base64(table):
    reader = ImageReader()
    for name in ("9", "7", "8", "7"):
        assert reader.read(f"{table}#{name}") == DATA[name]
    assert TsvIndex(str(table)).ids == ["7", "8", "9"]
    with pytest.raises(MissingImage, match=r"imgs\.tsv: no image 10"):
        reader.read(f"{table}#10")


def test_a_damaged_picture_is_that_pictures_problem_alone(table):
    table.write_bytes(table.read_bytes() + b"\n10\t*!*\n11\tQUJD\n")
    reader = ImageReader()
    with pytest.raises(MissingImage, match=r"imgs\.tsv:5: image 10: damaged base64"):
        reader.read(f"{table}#10")
    assert reader.read(f"{table}#11") == b"ABC"


def test_a_table_without_tabs_is_refused(table):
    table.write_bytes(b"7\tQUJD\nno tab here\n")
    with pytest.raises(InputError, match=r"imgs\.tsv:2: no tab"):
        ImageReader().read(f"{table}#7")


def test_a_reference_into_a_table_moves_with_it(table):
    assert split_container("a/imgs.tsv#7") == ("a/imgs.tsv", "7")
    assert Relocator(None)("a/../imgs.tsv#7") == f"{Path.cwd().resolve()}/imgs.tsv#7"
    reader = ImageReader(root=table.parent)
    assert reader.read("imgs.tsv#8") == DATA["8"]
