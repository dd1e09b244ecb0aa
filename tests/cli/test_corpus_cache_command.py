"""`chargen corpus cache`: what is encoded is shown, verified and cleared."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from chargen.cache_folder import cache_folder
from chargen.data import source_index
from chargen.data.corpus import Corpus
from tests.commands import Run


@pytest.fixture
def corpora(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Corpus]:
    """Two texts that are encoded, the second one two days ago, which is remembered by name."""
    (tmp_path / "a.txt").write_text("first text\n" * 200_000)
    (tmp_path / "b\x1b[2J.txt").write_text("another text\n")
    first = Corpus.from_files(tmp_path / "a.txt", cache=cache_folder())
    monkeypatch.setattr(source_index, "MIN_AGE", 0)
    second = Corpus.from_files(tmp_path / "b\x1b[2J.txt", cache=cache_folder())
    old = os.stat(cache_folder() / second.key).st_mtime - 2.5 * 86_400
    os.utime(cache_folder() / second.key, (old, old))
    return [first, second]


def test_what_is_encoded_is_shown_the_last_used_first(run: Run, corpora: list[Corpus]) -> None:
    header, first, second = run("corpus", "cache").out.splitlines()
    assert header == f"{cache_folder()}: 2 encoded texts, 2.2 MB"
    assert first.split(maxsplit=4)[:4] == ["2.2", "MB", "just", "now"]
    assert first.endswith("a text that was given once, or has changed")
    assert "2 days ago" in second
    assert second.endswith("b\\x1b[2J.txt")
    assert first.index("just now") == second.index("2 days ago"), "columns"
    shown = json.loads(run("corpus", "cache", "--json").out)
    assert [Path(text["path"]).name for text in shown["texts"]] == [corpus.key for corpus in corpora]
    assert (shown["removed"], shown["freed"], shown["folder"]) == (0, 0, str(cache_folder()))


def test_what_else_the_folder_holds_is_shown_and_stays(run: Run, corpora: list[Corpus]) -> None:
    for name, size in (("corpora/tale/tale.txt", 1_500_000), ("kernels/a/b.nbi", 700)):
        (cache_folder() / name).parent.mkdir(parents=True)
        (cache_folder() / name).write_bytes(bytes(size))
    shown = run("corpus", "cache", "--clear").out.splitlines()
    assert shown[0].endswith(": 0 encoded texts")
    assert shown[1].startswith("1.5 MB         corpora that were fetched: ")
    assert shown[2].startswith("700 bytes      compiled inner loops: ")
    assert f" {cache_folder() / 'kernels'} may be deleted by hand" in shown[2]
    assert json.loads(run("corpus", "cache", "--json").out)["others"] == {"corpora": 1_500_000, "kernels": 700}


def test_of_many_files_the_first_is_named(
    run: Run, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_index, "MIN_AGE", 0)
    (tmp_path / "texts").mkdir()
    for number in range(source_index.MAX_NAMES + 9):
        (tmp_path / f"texts/{number:03}.txt").write_text("a text\n")
    Corpus.from_files(tmp_path / "texts", cache=cache_folder())
    assert run("corpus", "cache").out.endswith("000.txt and many more\n")
    (tmp_path / "texts/000.txt").write_text("another\n")
    Corpus.from_files([tmp_path / "texts/000.txt", tmp_path / "texts/001.txt"], cache=cache_folder())
    assert "000.txt and 1 more\n" in run("corpus", "cache").out


def test_what_is_damaged_is_removed(run: Run, corpora: list[Corpus]) -> None:
    assert run("corpus", "cache", "--verify").err == "all are whole\n"
    ids = cache_folder() / corpora[0].key / "ids"
    data = np.fromfile(ids, np.uint8)
    data[1234] ^= 1
    data.tofile(ids)
    verified = run("corpus", "cache", "--verify")
    assert (verified.code, verified.err) == (0, "1 damaged text removed\n")
    assert "1 encoded text," in verified.out
    assert not ids.exists()


def test_what_is_old_or_all_is_cleared(run: Run, corpora: list[Corpus]) -> None:
    cleared = run("corpus", "cache", "--clear", "--unused-for", "2")
    assert "1 encoded text," in cleared.out
    assert cleared.err.startswith("1 text removed, ")
    assert (cache_folder() / corpora[0].key).exists()
    assert run("corpus", "cache", "--clear").err == "1 text removed, 2.2 MB free again\n"
    assert run("corpus", "cache").out == f"{cache_folder()}: 0 encoded texts\n"


def test_what_does_nothing_is_refused(run: Run) -> None:
    for arguments, flag in ((["--unused-for", "2"], "--unused-for"), (["--verify", "--clear"], "--verify")):
        refused = run("corpus", "cache", *arguments)
        assert refused.code == 2
        assert refused.one_line()
        assert flag in refused.err


def test_a_command_of_a_group_that_is_none_is_refused(run: Run) -> None:
    assert run("corpus", "cahce").err == "chargen: there is no command 'corpus cahce'; did you mean cache?\n"
    assert "corpus cache" in run("corpus", "--help").out
    assert run("corpus").code == 2
