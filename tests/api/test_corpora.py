"""Corpora that are made in one call."""

from pathlib import Path

import pytest

import chargen
from chargen.data.made_languages import LANGUAGES
from chargen.errors import DataError, SettingError


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", LANGUAGES)
def test_a_made_corpus_is_the_same_in_memory_and_in_a_file(name: str, labelled: bool, tmp_path: Path) -> None:
    made = chargen.make_corpus(name, num=7, seed=3, labelled=labelled)
    written = chargen.make_corpus(name, num=7, seed=3, labelled=labelled, out=tmp_path / "deep" / "text")
    assert written.path.read_text() == made.text == "".join(written) == "".join(LANGUAGES[name].lines(7, 3, labelled))
    assert made.path is None
    assert made.nats_per_string == LANGUAGES[name].nats_per_string
    assert made.nats_per_character == LANGUAGES[name].nats_per_character
    assert f"MadeCorpus({name}; 7 strings; entropy {made.nats_per_character:.4f} nats" in repr(made)


def test_a_file_is_replaced_only_where_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("mine")
    with pytest.raises(DataError, match="exists: choose another `out`"):
        chargen.make_corpus("counter", out=file)
    assert file.read_text() == "mine"
    chargen.make_corpus("counter", num=2, out=file, overwrite=True)
    assert file.read_text() == chargen.make_corpus("counter", num=2).text
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="exists"):
        chargen.make_corpus("counter", out=tmp_path / "link")
    for overwrite in (False, True):
        with pytest.raises(DataError, match="is a folder"):
            chargen.make_corpus("counter", out=tmp_path, overwrite=overwrite)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"name": "reber"}, DataError, "no language 'reber'"),
        ({"name": ["counter"]}, SettingError, "name is of type list"),
        ({"num": 0}, SettingError, "num is 0"),
        ({"num": 2.5}, SettingError, "num is 2.5"),
        ({"seed": -1}, SettingError, "seed is -1"),
        ({"out": ""}, SettingError, "out is ''"),
    ],
)
def test_what_cannot_be_made_is_refused(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chargen.make_corpus(**{"name": "counter", **settings})
