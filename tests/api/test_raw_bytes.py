"""Bytes of anything: any file trains, and the same bytes are written, scored and evaluated."""

import gzip
import html
import io
import json
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from chargen import score
from chargen.cli.terminal import TextWriter
from chargen.data.corpus import Corpus
from chargen.data.reading import clean
from chargen.data.reading_config import ReadingConfig
from chargen.data.vocabulary import RAW_BYTES, Vocabulary
from chargen.errors import SettingError
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import ModelFile, read_model, save_model
from tests import commands
from tests.commands import Run
from tests.small_models import small_model
from tests.terminals import Terminal

ANY = random.Random(0).randbytes(3000)


QUICK = ["--steps", "2", *commands.QUICK]


@pytest.fixture
def run(run: Run) -> Run:
    """Run commands where any.bin is."""
    Path("any.bin").write_bytes(ANY)
    return run


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def model(**options: bool) -> ModelFile:
    """A model of raw bytes with random weights."""
    file = small_model("gru", num_layers=1, unit="byte", scale=1.0, **options)
    return ModelFile(
        file.config, Vocabulary(RAW_BYTES, unit="byte"), file.arrays, file.counts, ReadingConfig(encoding="raw")
    )


def test_any_file_trains_and_is_written_scored_and_evaluated_as_bytes(run: Run) -> None:
    code, _, stderr = run("train", "any.bin", "--unit", "byte", "--encoding", "raw", "--out", "m", *QUICK)
    assert code == 0, stderr
    assert f"any.bin: 3,000 bytes, {len(set(ANY))} distinct, 1 file (train 2,700, valid 300)" in stderr
    assert "on the whole validation text: 299 characters, 299 bytes" in stderr
    assert read_model("m").reading == ReadingConfig(encoding="raw")
    code, out, _ = run("sample", "m", "--length", "500", "--seed", "1", "--prime-file", "any.bin", "--no-echo")
    written = as_bytes(out)
    assert (code, len(written)) == (0, 500)
    with pytest.raises(UnicodeDecodeError):
        written.decode()
    code, echoed, _ = run("sample", "m", "--length", "500", "--seed", "1", "--prime-file", "any.bin")
    assert as_bytes(echoed) == ANY + written
    written = run("sample", "m", "--length", "3", "--prime", "é").data
    assert (len(written), written[:2]) == (5, "é".encode())
    code, out, stderr = run("eval", "m", "any.bin", "--part", "valid", "--json")
    figures = json.loads(out)
    assert (code, figures["characters"], figures["bytes"]) == (0, 299, 299)
    assert figures["bits_per_byte"] == figures["bits_per_character"]
    code, out, stderr = run("score", "m", "any.bin", "--by", "forward", "--threshold", "0")
    assert (code, as_bytes(out).startswith(ANY)) == (0, True), stderr
    code, out, _ = run("info", "m")
    assert "256 bytes" in out
    code, _, stderr = run("train", "any.bin", "--init-from", "m", "--out", "n", *QUICK[:2], *QUICK[6:])
    assert (code, "256 bytes known, none new" in stderr) == (0, True), stderr


def test_what_does_not_fit_an_encoding_is_told_of_raw(run: Run) -> None:
    code, _, stderr = run("train", "any.bin", *QUICK)
    assert code == 3
    assert "learn its bytes with --unit byte --encoding raw" in stderr
    Path("old.txt").write_bytes("é and è and ê\n".encode("latin-1") * 99)
    code, _, stderr = run("train", "old.txt", *QUICK)
    assert code == 3
    assert "--unit byte --encoding raw learns any bytes" in stderr
    code, _, stderr = run("train", "any.bin", "--encoding", "raw", *QUICK)
    assert (code, "--encoding is raw: it needs --unit byte" in stderr) == (2, True)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_sampler_of_raw_bytes_writes_each_byte_as_a_character(direction: str) -> None:
    file = model(bidirectional=direction == "backward")
    sampler = Sampler(file, seed=3, direction=direction)
    sampler.feed(clean("é", file.reading))
    first = sampler.generate(100)
    assert len(as_bytes(first)) == len(first) == 100
    whole = Sampler(file, seed=3, direction=direction)
    whole.feed("é")
    text = whole.generate(3000)
    assert first == (text[-100:] if direction == "backward" else text[:100])
    written = np.frombuffer(as_bytes(text), np.uint8)
    assert len(set(written.tolist())) == 256


def test_stops_and_bans_of_raw_bytes() -> None:
    file, text = model(), Sampler(model(), seed=4).generate(2000)
    stop = next(text[at : at + 2] for at in range(500, 2000) if min(text[at : at + 2]) > "\x7f")
    stopped = Sampler(file, seed=4, stop=(stop,)).generate(2000)
    assert stopped == text[: text.index(stop) + 2]
    banned = Sampler(file, seed=4, ban="é", stop=("ab",), no_repeat=3).generate(2000)
    assert not {"\udcc3"} & set(banned)
    assert len(Sampler(file, seed=4, stop=("é",)).generate(300)) == 300


def test_a_model_of_utf_8_still_writes_no_broken_character(run: Run) -> None:
    Path("text.txt").write_text("é字😀" * 300, "utf-8")
    assert run("train", "text.txt", "--unit", "byte", "--out", "m", *QUICK)[0] == 0
    for seed in range(5):
        assert len(run("sample", "m", "--length", "200", "--seed", seed).data.decode()) == 200


def test_a_terminal_shows_bytes_as_escapes_and_a_pipe_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    cases = (True, r"a\xff\x80\x1b", b"a\xff\x80\x1b"), (False, r"a\udcff\udc80\x1b", b"a\\udcff\\udc80\x1b")
    for raw, shown, piped in cases:
        terminal, pipe = Terminal(), io.BytesIO()
        for stream in (terminal, io.TextIOWrapper(pipe)):
            writer = TextWriter(stream, raw=raw)
            writer.write("a\udcff\udc80\x1b")
            writer.close()
        assert terminal.getvalue() == shown + "\n"
        assert pipe.getvalue() == piped


def test_scores_show_bytes_as_escapes_and_their_json_is_text(run: Run) -> None:
    save_model("m", model())
    Path("some.bin").write_bytes(b"\xff\x80\\\x1b\xc3\xa9")
    words = "score", "m", "some.bin", "--threshold", "1", "--alternatives", "200"
    code, out, _ = run(*words)
    lines = out.splitlines()[1:]
    assert (code, len(lines)) == (0, 6)
    shown = [line.partition(": ")[2].split()[0] for line in lines]
    assert shown == [r"'\xff'", r"'\x80'", r"'\\'", r"'\x1b'", r"'\xc3'", r"'\xa9'"]
    assert re.search(r", '\\x[89a-f][0-9a-f]' 0\.", "".join(lines))
    assert r"\udc" not in "".join(lines)
    code, out, _ = run(*words, "--json")
    assert "\\ud" not in out
    figures = json.loads(out)
    assert figures["text"].encode("latin-1") == b"\xff\x80\\\x1b\xc3\xa9"
    assert {1} == {len(other) for others in figures["alternatives"].values() for other in others}


def test_a_notebook_shows_bytes_as_escapes() -> None:
    shown = score(model(), "a\udcff", threshold=1, num_alternatives=250)._repr_html_()
    assert r">\xff</span>" in shown
    assert re.search(r", '\\x[89a-f][0-9a-f]' 0\.", html.unescape(shown))
    assert r"\udc" not in shown


def test_a_raw_model_cannot_begin_another_one_of_characters(run: Run) -> None:
    assert run("train", "any.bin", "--unit", "byte", "--encoding", "raw", "--out", "m", *QUICK)[0] == 0
    code, _, stderr = run("train", "any.bin", "--init-from", "m", "--unit", "character", *QUICK[:2])
    assert (code, "encoding is raw" in stderr) == (2, True)
    with pytest.raises(SettingError):
        Sampler(model(), vocabulary=Vocabulary(unit="byte"))


@pytest.mark.parametrize("name", ["packed.gz", "packed", "named.gz", "named.xz", "packed.zip"])
def test_raw_bytes_are_those_of_the_file_unless_it_is_a_named_gz(tmp_path, name):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("text.txt", "abc" * 999)
    stored = {"packed.gz": gzip.compress(b"abc" * 999, mtime=0), "packed.zip": held.getvalue()}
    stored["packed"] = stored["packed.gz"]
    content = stored.get(name, bytes(range(256)))
    (tmp_path / name).write_bytes(content)
    content = b"abc" * 999 if name == "packed.gz" else content
    corpus = Corpus.from_files(tmp_path / name, unit="byte", encoding="raw", valid_fraction=0.0)
    assert corpus.vocabulary.decode(corpus.train).encode("utf-8", "surrogateescape") == content


def test_a_prime_file_is_read_as_the_text_was(run: Run) -> None:
    Path("text.txt").write_bytes("Ein schöner Tag für Ärzte.\n".encode("cp1252") * 40)
    words = ["--encoding", "cp1252", "--steps", "2", "--hidden-size", "8", "--batch-size", "2", "--seq-length", "8"]
    for arguments in (["train", "text.txt", *words, "-q"], ["sample", "checkpoints/text", "--prime-file", "text.txt"]):
        result = run(*arguments)
        assert result.code == 0, result.err
