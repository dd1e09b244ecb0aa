"""Corpora that are made, or got by their names, in one call."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import chargen
from chargen.data.made_languages import LANGUAGES
from chargen.data.named_corpora import catalogue
from chargen.errors import ChargenError, DataError, SettingError, WriteError
from tests.commands import parse
from tests.web import TALE, Web, serve, status


@pytest.mark.parametrize(("command", "function"), [("make", chargen.make_corpus), ("get", chargen.get_corpus)])
def test_a_call_has_the_options_and_defaults_of_its_command(command: str, function: Callable[..., object]) -> None:
    parameters = inspect.signature(function).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in ("name", "progress")}
    options = parse(f"corpus {command}", ["counter"]).params
    assert {name: value or None for name, value in options.items() if name not in ("name", "names")} == {
        name: default or None for name, default in defaults.items()
    }


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


def test_a_corpus_is_fetched_once_and_then_here(tale: chargen.NamedCorpus, server: Web, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert chargen.get_corpus("tale", progress=lambda *done: seen.append(done)) == [tale.path]
    assert tale.path.read_bytes() == TALE
    assert seen[-1] == ("getting", len(TALE), len(TALE))
    assert chargen.get_corpus("tale", offline=True) == [tale.path]
    (copy,) = chargen.get_corpus("tale", out=tmp_path / "copies" / "mine")
    assert copy.read_bytes() == TALE
    assert server.asked == [""]


def test_a_copy_is_refused_before_anything_is_fetched(tale: chargen.NamedCorpus, server: Web, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(DataError, match="exists"):
        chargen.get_corpus("tale", out=tmp_path / "mine")
    assert server.asked == []
    chargen.get_corpus("tale", out=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine").read_bytes() == TALE
    with pytest.raises(DataError, match="python has no single file"):
        chargen.get_corpus("python", out=tmp_path / "other")


@pytest.mark.parametrize(
    ("variable", "offline", "fetched"),
    [("", None, True), ("0", None, True), ("1", None, False), ("", True, False), ("1", False, True)],
)
def test_offline_nothing_is_fetched_and_the_error_says_what_to_do_by_hand(
    variable: str, offline: bool | None, fetched: bool, tale: chargen.NamedCorpus, server: Web,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CHARGEN_OFFLINE", variable)
    if fetched:
        assert chargen.get_corpus("tale", offline=offline) == [tale.path]
        return
    by_hand = re.escape(f"save {tale.address} as {tale.path} by hand, or name a file of your own, or python, which")
    with pytest.raises(DataError, match=f"`offline` or CHARGEN_OFFLINE.*{by_hand}") as caught:
        chargen.get_corpus("tale", offline=offline)
    assert len(str(caught.value).splitlines()) == 1
    assert server.asked == []
    tale.path.parent.mkdir(parents=True)
    tale.path.write_bytes(TALE[:99])
    with pytest.raises(DataError, match=r"by hand \(what is there is another file, of 99 bytes instead of 3,720\), or"):
        chargen.get_corpus("tale", offline=offline)
    tale.path.write_bytes(TALE)
    assert chargen.get_corpus("tale", offline=offline) == [tale.path]


def test_a_failure_says_what_to_do(tale: chargen.NamedCorpus, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script(serve(TALE, cut=100))
    with pytest.raises(
        ChargenError, match=r"cannot get .*after 100 of 3,720 bytes.*; try again, or save http.* by hand"
    ):
        chargen.get_corpus("tale")
    server.script(status(404))
    with pytest.raises(ChargenError, match="404"):
        chargen.get_corpus("tale")
    server.script(serve(TALE[::-1]))
    with pytest.raises(ChargenError, match=r"SHA-256.*; name a file of your own$") as caught:
        chargen.get_corpus("tale")
    assert caught.value.exit_code == 1
    monkeypatch.setenv("CHARGEN_CACHE", str(tale.path.parent / ".lock"))
    with pytest.raises(WriteError, match="set CHARGEN_CACHE to a folder"):
        chargen.get_corpus("tale")


def test_a_file_that_was_damaged_is_fetched_again(tale: chargen.NamedCorpus, server: Web) -> None:
    chargen.get_corpus("tale")
    tale.path.write_bytes(TALE[::-1])
    assert chargen.get_corpus("tale") == [tale.path]
    assert tale.path.read_bytes() == TALE
    assert server.asked == ["", ""]


def test_training_fetches_what_is_missing(
    tale: chargen.NamedCorpus, server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"steps": 1, "hidden_size": 4, "batch_size": 2, "seq_length": 4, "precision": "fp32", "device": "cpu"}
    with pytest.raises(DataError, match="nothing is fetched"):
        chargen.train("tale", out="run", offline=True, **small)
    assert not Path("run").exists()
    chargen.train("tale", out="run", **small)
    chargen.train(["tale"], valid="tale", offline=True, **small)
    assert server.asked == [""]
    tale.path.unlink()
    chargen.train(resume="run", steps=2, offline=True)  # from the cache of encoded texts
    Path("tale").write_bytes(TALE)
    chargen.train("tale", **small)
    assert server.asked == [""]
    Path("tale").unlink()
    chargen.train(Path("tale"), **small)
    assert server.asked == ["", ""]


def test_the_list_is_the_catalogue(tale: chargen.NamedCorpus) -> None:
    assert chargen.list_corpora() == list(catalogue().values())
    assert tale in chargen.list_corpora()
