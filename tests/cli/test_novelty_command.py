"""`chargen novelty`: texts and models beside a corpus, as a table, as JSON, and on narrow terminals."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

import chargen
from chargen import Corpus
from chargen.cli.terminal import display_width
from chargen.data.reading_config import ReadingConfig
from chargen.storage.model_file import save_model
from tests.commands import TEXT, Run
from tests.record_models import record_model
from tests.small_models import small_model
from tests.terminals import Terminal, harmful

pytest.importorskip("pydivsufsort")
WORDS = "The quick brown fox jumps over the lazy dog, and packs my box with jugs."


@pytest.fixture(autouse=True)
def corpus(run: Run) -> None:
    """A corpus of two files beside `text.txt`."""
    Path("books").mkdir()
    Path("books/1.txt").write_text("First line.\n" + WORDS + "\n" + "Sphinx of black quartz! " * 3 + "\n")
    Path("books/2.txt").write_text("漢字 " + WORDS[4:40])


def test_a_copy_is_named_with_both_places(run: Run) -> None:
    Path("mine.txt").write_text("I say:\nTHE " + WORDS[4:])
    result = run("novelty", "mine.txt", "books")
    assert result.code == 0
    rows = {line[:18].strip(): line[18:].split() for line in result.out.split("\n")[1:12]}
    assert rows["characters"] == ["79", "20"]
    assert rows["longest copy"][0] == "69"
    (line,) = [line for line in result.out.split("\n") if line.startswith("69 at ")]
    assert line == f'69 at mine.txt, line 2, column 4 = books/1.txt, line 2, column 4: "{WORDS[3:]}"'


def test_json_is_what_the_call_returns_from_a_file_and_a_pipe(run: Run) -> None:
    expected = json.loads(json.dumps(chargen.novelty(Path("text.txt"), ["books", "text.txt"], show=3).as_dict()))
    assert json.loads(run("novelty", "text.txt", "books", "text.txt", "--show", 3, "--json").out) == expected
    piped = json.loads(run("novelty", "-", "books", "text.txt", "--show", 3, "--json", stdin=TEXT.encode()).out)
    assert piped["text"]["novel"] == expected["text"]["novel"]
    assert piped["text"]["copies"][0]["place"]["name"] == "standard input"


def test_a_model_writes_with_the_options_of_sample(run: Run) -> None:
    save_model("m.safetensors", small_model())
    words = ["novelty", "m.safetensors", "text.txt", "--length", 70, "--num", 2, "-t", 0.5, "--json"]
    figures = json.loads(run(*words, "--seed", 3).out)
    expected = chargen.novelty("m.safetensors", "text.txt", length=70, num=2, temperature=0.5, seed=3)
    assert figures == json.loads(json.dumps(expected.as_dict()))
    result = run(*words)
    assert result.err == f"seed {json.loads(result.out)['seed']}\n"


def test_a_model_of_records_writes_whole_ones(run: Run) -> None:
    file = replace(record_model(labels=()), reading=ReadingConfig(records="line"))
    save_model("r.safetensors", file)
    records = chargen.generate(file, num=50, seed=1)
    Path("names.txt").write_text("\n".join([*records[:30], "other"]))
    figures = json.loads(run("novelty", "r.safetensors", "names.txt", "--num", 50, "--seed", 1, "--json").out)["text"]
    known = {record for record in records[:30] if record}
    assert (figures["texts"], figures["whole"]) == (sum(map(bool, records)), sum(record in known for record in records))
    assert 0 < figures["whole"] < figures["texts"]
    with pytest.raises(chargen.ChargenError, match="does not say how that was"):
        chargen.novelty(record_model(), "names.txt")


def test_bytes_that_are_no_text_are_shown_as_such(run: Run) -> None:
    raw = ReadingConfig(encoding="raw")
    save_model(
        "b.safetensors",
        replace(
            small_model(unit="byte", scale=9.0),
            vocabulary=Corpus.from_text("a\udcff", unit="byte", encoding="raw").vocabulary,
            reading=raw,
        ),
    )
    Path("all.bin").write_bytes(bytes(range(256)) * 2)
    words = ["novelty", "b.safetensors", "all.bin", "--shortest", 1, "--show", 300, "--seed", 1, "--length", 900]
    figures = json.loads(run(*words, "--json").out)
    assert figures["text"]["novel"]["1"] == 0
    texts = "".join(copy["text"] for copy in figures["text"]["copies"])
    assert "\xff" >= max(texts) > "\x7f"
    assert '"\\x' in run(*words).out


@pytest.mark.parametrize("width", [40, 80])
def test_rows_fit_a_terminal_and_nothing_steers_it(run: Run, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "ab\x1b[2Jc\u202ed\x07\x9be漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字" * 9
    Path("\x1b[2J.txt").write_text(hostile)
    Path("hostile.txt").write_text(hostile)
    screen = Terminal()
    monkeypatch.setattr(screen, "fileno", lambda: 1, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((width, 24)))
    assert run("novelty", "hostile.txt", "\x1b[2J.txt", "text.txt", stdout=screen).code == 0
    shown = screen.getvalue()
    assert not harmful(shown)
    assert max(map(display_width, shown.split("\n"))) in range(width - 3, width)
    assert "\nCopies\n" in shown
    assert "Loops" in shown


def refused(run: Run, *words: Any) -> str:
    result = run("novelty", *words)
    assert result.code == 2
    assert result.one_line()
    return result.err


def test_refusals_say_what_to_do(run: Run) -> None:
    save_model("m.safetensors", small_model())
    assert "give a MODEL or a TEXT, and behind it a CORPUS" in refused(run, "text.txt")
    assert "- is standard input, which can be read only once" in refused(run, "-", "-")
    assert "--seed says how a model writes, and this is a text" in refused(run, "text.txt", "books", "--seed", 1)
    assert "--records is for a text" in refused(run, "m.safetensors", "books", "--records", "line")
    assert asdict(chargen.novelty(Path("text.txt"), "books", held_out="text.txt"))["held_out"]["copied"] == 0
