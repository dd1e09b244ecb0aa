"""The page that is a model, as a file: its size, its policy, and that no name becomes markup."""

import base64
import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import chargen
import chargen.cli.export as export_command
from chargen.cli.main import main
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError, SettingError, WriteError
from chargen.exporting.page import page_script, write_page
from chargen.storage.model_file import read_model, save_model
from tests.insight.pages import HOSTILE, data_of, payloads
from tests.insight.test_report import Census
from tests.record_models import record_model
from tests.small_models import small_model


def test_the_model_that_comes_with_chargen_fits_into_four_megabytes() -> None:
    assert len(write_page(read_model("shakespeare"), "shakespeare").encode()) <= 4_000_000


def test_the_policy_allows_this_style_this_script_and_a_worker_only() -> None:
    page = write_page(small_model(), "a model")
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script == page_script()
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    census = Census(page)
    assert census.policy == (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    names = {name for _, names in census.elements for name in names}
    assert not {name for name in names if name.startswith("on")} | names & {"style", "src", "href", "srcdoc"}


def test_names_labels_and_vocabularies_add_no_element() -> None:
    plain, hostile = record_model(labels=("a", "b")), "".join(sorted({*"".join(HOSTILE)} - {"\x00"}))
    vocabulary = Vocabulary(hostile, records=True, labels=[HOSTILE[0], HOSTILE[2]])
    file = record_model(letters=hostile, labels=tuple(vocabulary.labels))
    bare, page = (Census(write_page(each, name)) for each, name in ((plain, "a"), (file, "".join(payloads(40)))))
    assert bare.elements == page.elements
    data = data_of(write_page(file, HOSTILE[0]))
    assert (data["name"], data["model"]["characters"]) == (HOSTILE[0], hostile)


def test_a_page_is_named_as_its_file_and_replaces_pages_only(tmp_path: Path) -> None:
    path, other = tmp_path / "my novel.html", tmp_path / "other.html"
    for _ in range(2):
        assert chargen.export(small_model(), path) == path
    assert data_of(path.read_text("utf-8"))["name"] == "my novel"
    for content in ("my notes", '<!doctype html>\n<html lang="en">\n<head>\n<title>My page</title>'):
        other.write_text(content)
        with pytest.raises(DataError, match="is no page that chargen wrote and is not overwritten"):
            chargen.export(small_model(), other)
        assert other.read_text() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.html")
    with pytest.raises(WriteError, match="there is something else than a file"):
        chargen.export(small_model(), tmp_path / "a.html")


@pytest.mark.skipif(sys.platform != "linux", reason="names are texts")
def test_a_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.html"))
    chargen.export(small_model(), path)
    assert data_of(path.read_text("utf-8"))["name"] == "b\ufffd"


def test_a_large_page_comes_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export_command, "SLOW_PAGE", 150_000)
    for hidden_size in (12, 96):
        save_model(tmp_path / "a.safetensors", small_model(hidden_size=hidden_size))
        with pytest.raises(SystemExit) as end:
            main(["export", str(tmp_path / "a.safetensors"), str(tmp_path / "a.html")])
        assert end.value.code == 0
        logged = capsys.readouterr().err
        assert re.search(r"a.html: [\d,]+ bytes, for a browser\n", logged)
        assert ("slow to open" in logged) == (hidden_size == 96)


def test_drafts_of_other_models_are_kept_under_other_names() -> None:
    keys = [data_of(write_page(small_model(seed=seed), "a"))["key"] for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]


def test_without_jinja2_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SettingError, match=r"pip install 'chargen\[report\]'"):
        write_page(small_model(), "a")


def test_data_is_in_ascii() -> None:
    file = small_model(characters="漢ש\u2028ab")
    page = write_page(replace(file, begin="\n"), "漢\u2028")
    (data,) = re.findall(r'id="data">([^<]*)</script>', page)
    assert data.isascii()
    assert json.loads(data)["name"] == "漢\u2028"
