"""Translations on disk: whose they are, what survives, what is no such file."""

import sqlite3
import subprocess
import sys

import pytest

from vlcli.errors import InputError, UsageError, VlcliError
from vlcli.text.translation_cache import TranslationCache


def test_what_was_put_is_found_by_translator_pair_and_text_alone(tmp_path):
    path = tmp_path / "new/cache.db"
    many = {f"text {i}": f"Satz {i}" for i in range(1203)}  # more than one statement holds
    with TranslationCache(path) as cache:
        cache.put("model", "en", "de", many)
    with TranslationCache(path) as cache:
        assert cache.get("model", "en", "de", [*many, "another"]) == many
        assert cache.get("model", "en", "ru", ["text 1"]) == {}
        assert cache.get("model", "de", "en", ["text 1"]) == {}
        assert cache.get("models", "en", "de", ["text 1"]) == {}
        assert cache.get("model", "en", "de", []) == {}
        assert cache.get("modele", "n", "de", ["text 1"]) == {}, "the parts of a key do not run together"


def test_two_runs_share_a_file_and_one_takes_back_its_own_alone(tmp_path):
    with TranslationCache(tmp_path / "c") as one, TranslationCache(tmp_path / "c") as other:
        one.put("m", "en", "de", {"a": "1"})
        other.put("m", "en", "de", {"b": "2"})
        assert one.get("m", "en", "de", ["a", "b"]) == {"a": "1", "b": "2"}
        one.forget_this_run()
        assert other.get("m", "en", "de", ["a", "b"]) == {"b": "2"}


def test_what_was_put_outlives_a_kill(tmp_path):
    program = (
        "import os, sys; from vlcli.text.translation_cache import TranslationCache; from pathlib import Path\n"
        "with TranslationCache(Path(sys.argv[1])) as cache:\n"
        "    cache.put('m', 'en', 'de', {'a': 'b'})\n"
        "    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "c")], check=False)
    assert done.returncode == -9
    with TranslationCache(tmp_path / "c") as cache:
        assert cache.get("m", "en", "de", ["a"]) == {"a": "b"}


def test_what_is_no_such_file_is_left_as_it_is(tmp_path):
    text, other, later = tmp_path / "text", tmp_path / "other", tmp_path / "later"
    text.write_bytes(b'{"id": "1"}\n' * 100)
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE mine (a)")
    connection.commit()
    connection.close()
    with TranslationCache(later):
        pass
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    for path, said in (
        (text, "file is not a database"),
        (other, "of this version"),
        (later, "of this version"),
    ):
        before = path.read_bytes()
        with pytest.raises(InputError, match=said), TranslationCache(path):
            pass
        assert path.read_bytes() == before
    with pytest.raises(UsageError, match="is a directory"):
        TranslationCache(tmp_path)
    with pytest.raises(UsageError, match="not a directory"):
        TranslationCache(text / "cache")


def test_a_file_that_cannot_be_written_is_a_runtime_error(tmp_path):
    with TranslationCache(tmp_path / "c") as cache:
        cache._open.execute("PRAGMA max_page_count = 8")  # a disk that is full
        with pytest.raises(VlcliError, match="full") as failed:
            cache.put("m", "en", "de", {f"{i}": "x" * 1000 for i in range(1000)})
        assert failed.value.exit_code == 1
        assert cache.get("m", "en", "de", ["1"]) == {}, "all or nothing"
        cache.put("m", "en", "de", {"a": "b"})
        assert cache.get("m", "en", "de", ["a"]) == {"a": "b"}
