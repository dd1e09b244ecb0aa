"""`chargen corpus info`: what is printed of a text, in rows that fit, and nothing in it that steers the terminal."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import chargen
from chargen.cli.terminal import display_width
from tests.commands import TEXT, Run
from tests.terminals import harmful, without_colors
from tests.texts import story

HOSTILE = "cafe\u0301 \x1b[2J\u202eevil\u00ad\ufeff\x9b\r\nplain \x07\n漢字 한 Привет\n" * 40


@pytest.fixture
def shown(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is printed of a text."""
    monkeypatch.chdir(tmp_path)

    def show(text: str, *options: str) -> str:
        Path("it.txt").write_text(text, "utf-8", newline="")
        result = run("corpus", "info", "it.txt", *options)
        assert (result.code, result.err) == (0, "")
        return result.out

    return show


def test_facts_stand_in_rows(shown: Callable[..., str]) -> None:
    out = shown(story(1) + "\n\n" + story(1)[:46])
    size, lines = len(story(1)) + 48, story(1).count("\n") + 1
    assert re.search(rf"^files +1 file, {size:,} bytes$", out, re.MULTILINE)
    assert re.search(rf"^size +{size:,} characters$", out, re.MULTILINE)
    assert re.search(rf"^lines +{lines:,} and 2 empty ones, of ", out, re.MULTILINE)
    assert re.search(r"^Latin +[\d,]+ +[\d.]+% +\d+$", out, re.MULTILINE)
    assert re.search(r"^most common +space [\d.]+%  ", out, re.MULTILINE)


def test_baselines_are_those_of_the_function(shown: Callable[..., str]) -> None:
    out = shown(story(1), "--order", "14", "--test-fraction", "0.2")
    info = chargen.corpus_info("it.txt", order=14, test_fraction=0.2)
    best = min(info.baselines.rows[2:16], key=lambda row: row.nats_per_character)
    for row in info.baselines.rows:
        line = re.search(rf"^{row.name} +([\d.]+) +([\d.]+)(.*)$", out, re.MULTILINE)
        if row.name in ("11-gram", "12-gram", "13-gram") and row is not best:
            assert line is None
            continue
        assert (line[1], line[2]) == (f"{row.nats_per_character:.4f}", f"{row.bits_per_character:.4f}")
        assert ("best n-gram" in line[3]) == (row is best)
    assert f"On {info.baselines.characters:,} characters behind the first." in out
    assert "What 14-grams write\n" in out
    assert info.sample.split("\n")[0] in out


def test_what_is_wrong_is_told_with_what_to_type(shown: Callable[..., str]) -> None:
    out = shown(HOSTILE)
    assert "warning: line ends are mixed (LF 80 and CR LF 40): --newline lf makes all of them LF\n" in out
    assert "such as U+0065 U+0301): --normalize NFC makes them one\n" in out
    assert out.endswith("perl -CSD -pe 's/[\\x{ad}\\x{202e}\\x{feff}]//g'\n")
    in_order = shown("\n".join(sorted(story(3).split())), "--records", "line", "--no-shuffle")
    assert "its loss is too high: leave out --no-shuffle\n" in in_order


def test_records_and_their_labels_are_told(shown: Callable[..., str]) -> None:
    rows = "name,kind\n" + "".join(f"n{number}\x1b,{'ab'[number % 2]}\n" for number in range(300))
    out = shown(rows, "--records", "csv", "--text-field", "name", "--label-field", "kind")
    assert re.search(r"^labels +a 150, b 150, no label 0$", out, re.MULTILINE)
    assert re.search(r"^records +300, of 3 to 5 characters, half of them up to 5$", out, re.MULTILINE)
    assert re.search(r"^train +2\d\d records, [\d,]+ characters, ends included$", out, re.MULTILINE)
    assert "characters, each record's end among them. N-grams learn from the training part, within records (" in out


@pytest.mark.parametrize("options", [[], ["--unit", "byte"], ["--min-count", "50"],
                                     ["--unit", "byte", "--encoding", "raw"]], ids=str)  # fmt: skip
def test_nothing_in_a_text_steers_a_terminal_and_rows_fit(
    options: list[str], on_terminal: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/\x1b[2J.txt").write_text(HOSTILE * 4, "utf-8", newline="")
    (tmp_path / "texts/\x1b[2J.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    screen = without_colors(on_terminal("corpus", "info", tmp_path / "texts", *options))
    assert not harmful(screen)
    assert max(map(display_width, screen.split("\n"))) <= 79


def test_json_is_what_the_function_tells(shown: Callable[..., str]) -> None:
    printed = json.loads(shown(TEXT, "--json", "--sample", "5", "--order", "3"))
    assert printed == json.loads(json.dumps(chargen.corpus_info("it.txt", sample=5, order=3).as_dict()))
    raw = json.loads(shown("é" * 90, "--json", "--unit", "byte", "--encoding", "raw"))
    assert max(raw["sample"]) < "\u0100"


def test_figures_of_a_part_say_so(shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("MAX_TRAIN", 3000), ("MAX_COMPRESSED", 2000), ("MAX_VALID", 500), ("MIN_COMPRESSED", 1)):
        monkeypatch.setattr(f"chargen.counting.baselines.{name}", limit)
    out = shown(story(1))
    assert "On at the beginning" not in out
    assert "At the beginning of that part, on 499 characters behind the first." in out
    assert "(interpolated modified Kneser-Ney), of which they read the last 3,000 characters." in out
    assert "behind the training part, of which they read the last 2,000 characters." in out


@pytest.mark.parametrize("text", ["", "a", "\n", "\ufeff", "ab" * 9])
def test_short_texts_are_told_of(text: str, shown: Callable[..., str]) -> None:
    assert "to learn from are few" in shown(text)


def test_what_is_put_between_files_and_passed_over_is_told(run: Run, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{name}.txt").write_text(name * 200)
    (tmp_path / "texts/c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "texts/.hidden").write_text("x")
    (tmp_path / "texts/d.html").write_text("<!DOCTYPE html><p>text</p>\n")
    (tmp_path / "texts/e.md").write_text("left out")
    out = run("corpus", "info", tmp_path / "texts", "--sample", 0, "--exclude", "*.md").out
    assert "2 line ends put between them\n" in out
    assert "1 file passed over as no text: " in out
    assert "1 entry not read: hidden" in out
    assert "1 file left out by --include and --exclude\n" in out
    assert "1 HTML file read with all tags; --documents learns the text in them\n" in out
    assert "grams write" not in out


def test_sizes_are_told_on_request(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chargen.training.autosize.time_reference", lambda *args: chargen.training.autosize.Speed(1e-4))
    (tmp_path / "it.txt").write_text(story(1))
    out = run("corpus", "info", tmp_path / "it.txt", "--minutes", 2).out
    section = out[out.index("What train would choose for 2 minutes\n") :]
    assert re.search(r"^model +GRU 2 x \d+$", section, re.MULTILINE)
    assert re.search(r"^chosen +\d+ hidden units: ", section, re.MULTILINE)
    assert "hidden unit" not in run("corpus", "info", tmp_path / "it.txt").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no text to look at: give a SOURCE, such as a file, a folder, - or python"),
        (["missing"], "missing"),
        (["text.txt", "--order", "0"], "--order is 0: it must be 1 to 100"),
        (["text.txt", "--valid", "text.txt", "--valid-fraction", "0.2"], "--valid and --valid-fraction are two ways"),
    ],
)
def test_what_cannot_be_told_is_refused_in_one_line(run: Run, words: list[str], message: str) -> None:
    result = run("corpus", "info", *words)
    assert result.one_line()
    assert message in result.err


def test_a_table_that_is_read_as_plain_text_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "abc"}\n' * 30)
    note = "1 table read as plain text; --records learns the texts in its rows"
    for _ in range(2):  # read, and remembered
        assert note in run("corpus", "info", "t.jsonl", "--sample", 0).out
    assert note in run("train", "t.jsonl", "--steps", 1, "--hidden-size", 8, "--preview", 0).err
    assert "plain text" not in run("corpus", "info", "t.jsonl", "--records", "jsonl", "--sample", 0).out


def test_files_that_are_left_out_are_told(run, tmp_path) -> None:
    (tmp_path / "texts").mkdir()
    for name in ("a.txt", "b.md", "c.md"):
        (tmp_path / "texts" / name).write_text("some text of a file\n" * 9)
    assert "2 files left out by --include and --exclude" in run("corpus", "info", "texts", "--include", "*.txt").out
