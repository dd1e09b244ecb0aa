"""Below the command line an error names settings as Python does; the command line writes them as its flags."""

import ast
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import chargen
from chargen.cli.flags import write_flags
from chargen.cli.main import cli
from chargen.data.corpus import Corpus
from chargen.data.corpus_config import CorpusConfig
from chargen.data.directions import make_batches
from chargen.data.reading import read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.sources import find_sources
from chargen.decoding.choose import SampleConfig
from chargen.durable import lock_folder
from chargen.errors import ChargenError, SettingError
from chargen.infill.template import Template
from chargen.model.config import ModelConfig, require_bidirectional
from chargen.sampling.sampler import Sampler
from chargen.storage.model_file import FILE_NAME, read_model, save_model
from chargen.training.plan import CONFIGS
from chargen.training.run_folder import check_free
from tests.commands import Result
from tests.small_models import small_model

ROOT = Path(chargen.__file__).parent
FLAGS = r"(?<!\S)--[a-z]|chargen (train|sample|fill|eval|score|check|info|export|corpus)\b"
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.parent.name != "cli")


def test_no_string_below_the_command_line_names_a_flag_or_a_command():
    wrong = []
    for path in MODULES:
        tree = ast.parse(path.read_text("utf-8"))
        described = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
                wrong += [f"{path}:{node.lineno}: {node.value}"] * bool(re.search(FLAGS, node.value))
    assert not wrong


def shown(message: str, command: str = "train", setting: str | None = None, **given: Any) -> str:
    root = click.Context(cli)
    context = click.Context(cli.get_command(root, command), parent=root)
    context.params = given
    return write_flags(SettingError(message, setting), context)


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ('fold with `min_count`, or train with `unit="byte"`', "fold with --min-count, or train with --unit byte"),
        ('give `unit="byte", encoding="raw"`; or more', "give --unit byte --encoding raw; or more"),
        ("(`seq_length=12`)", "(--seq-length 12)"),
        ("train one with `bidirectional=True`", "train one with --bidirectional"),
        ("choose another `out`, or `overwrite`", "choose another --out, or --overwrite"),
        ("leave out `logits`", "leave out `logits`"),
        ("give `unit, logits`", "give `unit, logits`"),
        ("a text of 'some `unit` here': give `unit`", "a text of 'some `unit` here': give --unit"),
        ("models' weights and `unit`; it's small", "models' weights and --unit; it's small"),
        ("texts/`out`: no text", "texts/`out`: no text"),
        ("missing: get it with get_corpus('war-and-peace')", "missing: get it with chargen corpus get war-and-peace"),
        ("`out`/run is used; did you mean `unit`?", "`out`/run is used; did you mean `unit`?"),
    ],
)
def test_settings_in_backticks_become_the_flags_of_the_command(message, flags):
    assert shown(message) == flags


def test_a_command_knows_its_own_flags_and_those_of_train():
    assert shown("`quantize`, `min_count`, `top_k`", "export") == "--quantize, --min-count, `top_k`"
    assert shown("top_k is 0: it must be more", "sample", "top_k") == "--top-k is 0: it must be more"
    assert shown("path is 0: it must be a path", "sample", "path") == "path is 0: it must be a path"


def test_what_a_command_was_given_is_no_setting():
    given = {"out": Path("`out`"), "valid": ("a `unit` b", "other"), "steps": 3}
    message = "`out` and a `unit` b are there: choose another `overwrite` or `unit`"
    assert shown(message, **given) == "`out` and a `unit` b are there: choose another --overwrite or --unit"


def test_a_backtick_in_a_text_hides_no_setting():
    assert shown("'`' is unknown; give `unit`", "sample", prime="a ` b") == "'`' is unknown; give --unit"


def test_a_file_may_be_called_as_a_setting(run):
    Path("`out`").mkdir()
    Path("`out`", FILE_NAME).write_bytes(b"x")
    assert "`out` already holds a run" in refusal(run("train", __file__, "--out", "`out`"))
    Path("texts").mkdir()
    Path("texts", "a `unit` b").write_bytes(b"\xff" * 9)
    assert "'texts/a `unit` b': line 1" in refusal(run("train", "texts", "--out", "run"))


def refusal(result: Result) -> str:
    """The last line that a failing command says."""
    assert result.code
    return result.last.removeprefix("chargen: ")


def hold_a_run(folder: str, **shape: bool) -> None:
    save_model(Path(folder) / FILE_NAME, small_model(**shape))


SAMPLE = ("sample", "model", "--length", "1")
CASES: list[tuple[str, Callable[[], object], tuple[str, ...]]] = [
    ("choose another --out, or replace it with --overwrite", lambda: check_free(Path("run")),
     ("train", "text", "--out", "run")),
    ("not a lock that chargen made; choose another --out", lambda: lock_folder(Path("strange")).__enter__(),
     ("train", "text", "--out", "strange")),
    ("or learn its bytes with --unit byte --encoding raw", lambda: Corpus.from_files("bytes"),
     ("train", "bytes")),
    ("give --encoding utf-16-le$", lambda: Corpus.from_files("wide"), ("train", "wide")),
    (r"give --encoding NAME \(cp1252, latin-1, gb18030 …\) or --errors replace; --unit byte --encoding raw learns",
     lambda: "".join(read_text(find_sources(["latin"])[0], ReadingConfig())), ("train", "latin")),
    ("choose a smaller --min-count", lambda: Corpus.from_files("text", config=CorpusConfig(min_count=99)),
     ("train", "text", "--min-count", "99")),
    ("'é' .* --unknown skip leaves them out; a model trained with --unit byte knows every text",
     lambda: Sampler(small_model()).feed("é"), (*SAMPLE, "--prime", "é")),
    ("leave them out with --unknown skip", lambda: Sampler(small_model()).feed("é", "replace"),
     (*SAMPLE, "--prime", "é", "--unknown", "replace")),
    ("--reverse needs .* train one with --bidirectional",
     lambda: require_bidirectional(ModelConfig(), "this"), (*SAMPLE, "--reverse")),
    (r"ask for as many \(--num 2\)", lambda: Sampler(small_model()).load_state("state"),
     (*SAMPLE, "--state-in", "state")),
    ("choose --seq-length 19 or less, or --batching consecutive",
     lambda: make_batches(np.zeros(20, np.int64), ("forward",), "random", 1, 64, 0),
     ("train", "short", "--batching", "random", "--valid-fraction", "0", "--steps", "1", "--seq-length", "64")),
    ("or give another --marker", lambda: Template.parse("no gap"), ("fill", "two", "text")),
    ("holds no model.safetensors; train one there with --out", lambda: read_model("strange"),
     ("sample", "strange")),
    ("fold some of the 50,000 characters with --min-count, or train with --unit byte",
     lambda: save_corpus_of_many(), ("train", "many", "--steps", "1", "--hidden-size", "4")),
]  # fmt: skip


def save_corpus_of_many() -> None:
    from chargen.training.trainer import Trainer

    Trainer(Corpus.from_files("many"), out="other")


@pytest.mark.parametrize(("shown", "call", "arguments"), CASES)
def test_python_and_the_command_line_say_the_same_each_in_its_words(shown, call, arguments, run):
    hold_a_run("run")
    hold_a_run("model")
    hold_a_run("two", bidirectional=True)
    Path("strange").mkdir()
    Path("strange", ".lock").write_text("x")
    Path("text").write_text("abc def\n" * 9)
    Path("short").write_text("abc def\n" * 2 + "abcd")
    Path("bytes").write_bytes(b"\0\1\2\3" * 99)
    Path("latin").write_bytes(b"caf\xe9 noir\n" * 9)
    Path("wide").write_bytes(("abc def\n" * 99).encode("utf-16-le"))
    Path("many").write_text(
        "".join(map(chr, range(0x4E00, 0x4E00 + 20_000))) + "".join(map(chr, range(0x20000, 0x20000 + 30_000)))
    )
    Sampler(small_model(), num=2).save_state("state")
    with pytest.raises(ChargenError) as caught:
        call()
    in_python = str(caught.value)
    assert "`" in in_python
    assert "--" not in in_python
    on_terminal = refusal(run(*arguments))
    assert re.search(shown, on_terminal)
    assert "`" not in on_terminal


def test_names_of_settings_in_messages_stand_in_backticks():
    names = {field.name for config in (*CONFIGS, SampleConfig) for field in fields(config) if "_" in field.name}
    for path in MODULES:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith("Error")):
                continue
            text = "".join(
                part.value for part in ast.walk(node.args[0] if node.args else node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )  # fmt: skip
            for word in re.findall(r"(?<![`\w.])\w+(?![`\w=])", text)[1:]:
                assert word not in names, f"{path.name}: {word} in {text}"
