"""A command and its function in Python are two doors to one house: the same options, defaults and results."""

import contextlib
import dataclasses
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import chargen
from chargen.api.corpus_info import InfoConfig
from chargen.cli.main import import_command
from chargen.data.corpus_config import CorpusConfig
from chargen.decoding.choose import SampleConfig
from chargen.errors import ChargenError, DataError, SettingError
from chargen.infill.fill import Filler
from chargen.model.config import ModelConfig
from chargen.storage.model_file import build_model, read_model, save_model
from chargen.storage.run_state import read_run_state
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer
from tests.commands import TEXT, Run, flags, parse
from tests.small_models import small_model
from tests.terminals import Terminal

QUICK: dict[str, Any] = {"hidden_size": 8, "embedding_size": 4, "batch_size": 4, "seq_length": 8, "precision": "fp32"}
DOORS: dict[str, tuple[Callable[..., Any], ...]] = {
    "train": (chargen.train,),
    "sample": (chargen.generate,),
    "fill": (chargen.fill, chargen.fill_text, Filler),
    "corpus info": (chargen.corpus_info,),
    "novelty": (chargen.novelty,),
}
SETTINGS: dict[str, tuple[type, ...]] = {
    "train": (CorpusConfig, ModelConfig, TrainConfig),
    "sample": (SampleConfig,),
    "fill": (SampleConfig,),
    "corpus info": (CorpusConfig, InfoConfig),
    "novelty": (SampleConfig,),
}
SHOWN = {"preview", "form", "separator", "as_json"}
"""Options that only say how a command shows what it does."""
NAMES = {("sample", "prime_file"): "prime", ("fill", "source"): "text", ("novelty", "text"): "model_or_text"}
"""In Python a Path is a file and a str a text."""
OTHER_DEFAULTS = {
    ("sample", "num"): "None returns a str; any number, also 1, a list",
    ("fill", "before"): "to be given, perhaps empty",
    ("fill", "after"): "to be given, perhaps empty",
}


@pytest.mark.parametrize("name", DOORS)
def test_every_option_is_a_parameter_with_the_same_default(name: str) -> None:
    command = import_command(name)
    parameters: dict[str, inspect.Parameter] = {}
    for function in reversed(DOORS[name]):
        parameters |= inspect.signature(function).parameters
    described = [field for config in SETTINGS[name] for field in dataclasses.fields(config)]
    fields = {field.name for field in described if field.metadata["help"]}  # others are not a person's to choose
    shown = SHOWN | ({"echo"} if name == "fill" else set())  # alternatives have their gaps apart
    defaults = parse(name, ["model or text"]).params
    options = {parameter.name: parameter for parameter in command.params if parameter.name in defaults.keys() - shown}
    for option in options:
        if option in fields:
            assert defaults[option] in (None, ()), f"{option}: the dataclass knows its default"
            continue
        parameter = parameters[NAMES.get((name, option), option)]
        if isinstance(options[option], click.Option) and (name, option) not in OTHER_DEFAULTS:
            assert parameter.default is not inspect.Parameter.empty
            assert (parameter.default or None) == (defaults[option] or None), option
    assert len(options) > 15
    assert fields <= options.keys()


@pytest.fixture
def printed_by(run: Run) -> Callable[..., str]:
    """Run a command that succeeds, beside a model and two texts; returns what it printed."""
    Path("sea").write_text(TEXT[:300])
    characters = "".join(sorted({*TEXT, "_"}))
    save_model("model.safetensors", small_model(characters=characters, scale=6.0, bidirectional=True))

    def run_command(command: str, *arguments: Any, **options: Any) -> str:
        result = run(command, *arguments, *flags(**options))
        assert result.code == 0, result.err
        return result.out

    return run_command


def assert_same_models(one: chargen.ModelFile, other: chargen.ModelFile) -> None:
    assert one.config == other.config
    assert one.vocabulary == other.vocabulary
    assert one.training == other.training
    assert one.begin == other.begin
    assert one.arrays.keys() == other.arrays.keys()
    assert all(np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preset": "small", "cell": "lstm"},
        {"unit": "byte", "test_fraction": 0.1, **QUICK},
        {"bidirectional": True, "tie_weights": True, "lr": 0.01, "seed": 3},
        {"batching": "random", "min_count": 40, "schedule": "constant", **QUICK},
        {"valid": ("sea",), "test": ("text.txt",), "epochs": 0.1, "steps": None, **QUICK},
    ],
    ids=lambda settings: " ".join(settings),
)
def test_train_learns_what_the_command_learns(printed_by: Callable[..., str], settings: dict[str, Any]) -> None:
    given = {name: value for name, value in ({"steps": 2} | settings).items() if value is not None}
    printed_by("train", "text.txt", out="run", preview=0, **given)
    result = chargen.train("text.txt", **{"steps": 2} | settings)
    assert_same_models(result.model, read_model("run"))
    assert result.valid_loss == result.model.training["valid_loss"]
    assert result.test_loss == result.model.training.get("test_loss")
    assert result.path is None
    assert not Path("checkpoints").exists(), "nothing was written"


def test_train_starts_from_a_model_and_resumes_as_the_command_does(printed_by: Callable[..., str]) -> None:
    first = chargen.train(Path("text.txt"), out="one", steps=2, **QUICK)
    assert first.path == Path("one")
    assert_same_models(first.model, read_model("one"))
    printed_by("train", "sea", out="by command", init_from="one", steps=1, freeze=1, preview=0)
    for start in ("one", first.model):
        assert_same_models(chargen.train(["sea"], init_from=start, steps=1, freeze=1).model, read_model("by command"))
    chargen.train("text.txt", out="two", steps=2, **QUICK)
    printed_by("train", resume="one", steps=4, preview=0)
    resumed = chargen.train(resume="two", steps=4)
    assert_same_models(resumed.model, read_model("one"))
    with pytest.raises(SettingError, match="is complete"):
        chargen.train(resume="two")
    with pytest.raises(SettingError, match="out cannot be given with `resume`"):
        chargen.train(resume="two", out="three")
    with pytest.raises(SettingError, match="already holds a run"):
        chargen.train("text.txt", out="two", steps=1, **QUICK)
    again = chargen.train("text.txt", out="two", overwrite=True, steps=1, **QUICK)
    assert_same_models(again.model, read_model("two"))
    Path("text.txt").rename("moved.txt")
    shutil.rmtree(os.environ["CHARGEN_CACHE"])
    assert chargen.train("moved.txt", resume="two", steps=2).model.training["step"] == 2


def test_what_train_refuses_is_told_before_the_text_is_read(printed_by: Callable[..., str]) -> None:
    for settings, words in (
        ({"hiden_size": 3}, "there is no setting 'hiden_size'; did you mean hidden_size?"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"preset": "huge"}, "preset is 'huge': it must be one of small, medium, large"),
        ({"preset": "small", "hidden_size": 3}, "preset says how many hidden units there are"),
        ({"valid": "sea", "valid_fraction": 0.2}, "valid and `valid_fraction` are two ways to say one thing"),
        ({"steps": 1, "epochs": 1}, "one budget twice"),
    ):
        with pytest.raises(SettingError) as refused:
            chargen.train("nowhere.txt", **settings)
        assert words in str(refused.value)
    with pytest.raises(DataError, match="no text to learn"):
        chargen.train(steps=1)
    assert not Path("run").exists()
    with pytest.raises(DataError):
        chargen.train("nowhere.txt", out="run", steps=1)
    assert not Path("run").exists()


def test_a_run_shows_itself_in_one_line_and_as_a_table(printed_by: Callable[..., str]) -> None:
    result = chargen.train("text.txt", steps=1, test_fraction=0.1, out="<run>", **QUICK)
    nats = f"{result.valid_loss:.4f} nats"
    assert repr(result).startswith("Run(model GRU 2 x 8, ")
    assert f"; valid {nats}, " in repr(result)
    assert repr(result).endswith("bits per character; in <run>)")
    assert "\n" not in repr(result)
    assert "<td>&lt;run&gt;</td>" in result._repr_html_()
    bare = chargen.train("text.txt", steps=1, valid_fraction=0.0, **QUICK)
    assert (bare.valid_loss, bare.test_loss) == (None, None)
    assert repr(bare).endswith("; in memory only)")


def test_a_bar_is_shown_on_terminals_in_notebooks_or_on_demand(
    printed_by: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chargen.train("text.txt", steps=3, **QUICK)
    assert capsys.readouterr() == ("", "")
    with contextlib.redirect_stderr(Terminal()) as terminal:
        chargen.train("text.txt", steps=3, **QUICK)
    assert "reading:   0%" in terminal.getvalue()
    assert "finishing: 100%" in terminal.getvalue()
    with contextlib.redirect_stderr(Terminal()) as terminal:
        chargen.train("text.txt", steps=3, progress=False, **QUICK)
    assert terminal.getvalue() == ""
    chargen.train("text.txt", steps=3, progress=True, **QUICK)
    assert "bits/char" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    chargen.train("text.txt", steps=3, **QUICK)
    assert "bits/char" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["cut", None])
def test_ctrl_c_saves_the_run_and_is_raised(
    printed_by: Callable[..., str], out: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chargen.train("text.txt", out="whole", steps=6, **QUICK)
    train_step = Trainer.run

    def interrupted(self: Trainer) -> Any:
        for progress in train_step(self):
            if progress.step == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield progress

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", interrupted)
        told = "stopped at step 3; " + ("go on with resume='cut'" if out else "without `out` nothing is saved")
        with pytest.raises(KeyboardInterrupt, match=f"^{re.escape(told)}$"):
            chargen.train("text.txt", out=out, steps=6, **QUICK)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Path("cut").exists() is bool(out)
    if out:
        assert read_run_state(out).progress["step"] == 3
        assert_same_models(chargen.train(resume=out).model, whole.model)


def test_train_runs_in_any_thread(printed_by: Callable[..., str]) -> None:
    results: list[chargen.Run] = []
    thread = threading.Thread(target=lambda: results.append(chargen.train("text.txt", steps=1, **QUICK)))
    thread.start()
    thread.join()
    assert results[0].model.training["step"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"length": 40, "temperature": 0.5, "top_k": 3},
        {"prime": "Call me ", "stop": ("a", "e")},
        {"prime": "went to sea.", "reverse": True, "length": 30, "temperature": 1.0},
        {"prime": "Some years", "echo": False, "length": 20, "quantize": "int8"},
        {"prime": "never mind", "adapt": 2, "length": 20},
        {"prime": "né", "unknown": "skip", "no_repeat": 4, "ban": "eS", "length": 60},
        {"prime_file": "sea", "length": 20, "top_p": 0.9, "min_p": 0.01},
        {"num": 3, "length": 20},
    ],
    ids=lambda options: " ".join(options),
)
def test_generate_returns_what_sample_prints(printed_by: Callable[..., str], options: dict[str, Any]) -> None:
    printed = printed_by("sample", "model.safetensors", seed=1, **options)
    if "prime_file" in options:
        options = {**options, "prime": Path(options["prime_file"])}
        del options["prime_file"]
    for model in ("model.safetensors", Path("model.safetensors"), read_model("model.safetensors")):
        written = chargen.generate(model, seed=1, **options)
        assert ("\0".join(written) if "num" in options else written) == printed


def test_generate_goes_on_from_a_state_as_sample_does(printed_by: Callable[..., str]) -> None:
    whole = chargen.generate("model.safetensors", length=30, seed=4)
    first = chargen.generate("model.safetensors", length=12, seed=4, state_out="by python")
    printed_by("sample", "model.safetensors", length=12, seed=4, state_out="by command")
    assert Path("by python").read_bytes() == Path("by command").read_bytes()
    assert first + chargen.generate("model.safetensors", length=18, state_in="by command") == whole
    other = printed_by("sample", "model.safetensors", length=18, state_in="by python", seed=5)
    assert chargen.generate("model.safetensors", length=18, state_in="by python", seed=5) == other


def test_one_text_is_a_str_and_several_are_a_list(printed_by: Callable[..., str]) -> None:
    one = chargen.generate("model.safetensors", seed=1, length=5)
    assert isinstance(one, str)
    assert chargen.generate("model.safetensors", seed=1, length=5, num=1) == [one]
    assert chargen.generate("model.safetensors", seed=1, length=5, num=2)[0] == one
    assert chargen.generate("model.safetensors", "sea", length=0) == "sea", "a str is a text"
    file = read_model("model.safetensors")
    network = build_model(file)
    assert len(chargen.generate(network, vocabulary=file.vocabulary, length=5)) == 5
    with pytest.raises(SettingError, match="adapt learns from the prime"):
        chargen.generate(file, adapt=1)
    with pytest.raises(SettingError, match="there is no setting 'temprature'"):
        chargen.generate(file, temprature=1)


@pytest.mark.parametrize(
    "options",
    [
        {"length": 2},
        {"min_length": 1, "max_length": 3, "num": 3, "temperature": 0.7},
        {"max_length": 6, "particles": 30, "ban": "e", "num": 2},
    ],
    ids=lambda options: " ".join(options),
)
def test_fill_finds_what_the_command_prints(printed_by: Callable[..., str], options: dict[str, Any]) -> None:
    parts = {"before": "Call me ", "after": " years"}
    printed = printed_by("fill", "model.safetensors", seed=2, format="jsonl", **parts, **options)
    lines = [json.loads(line) for line in printed.splitlines()]
    found = chargen.fill("model.safetensors", **parts, seed=2, **options)
    told = [(line["gaps"][0]["text"], line["gaps"][0]["log_prob"], line["gaps"][0]["found"]) for line in lines]
    assert told == [(gap.text, gap.log_prob, found.found) for gap in found.alternatives]


@pytest.mark.parametrize(
    "options",
    [{"length": 2}, {"num": 2, "length": 1, "temperature": 0.0}, {"marker": "me", "max_length": 2, "unknown": "skip"}],
    ids=lambda options: " ".join(options),
)
def test_fill_text_fills_what_the_command_fills(printed_by: Callable[..., str], options: dict[str, Any]) -> None:
    text = "Call me___{3} year\u00e9 ago___ sea" if "unknown" in options else "Call me___{3} years ago___ sea"
    Path("gaps.txt").write_text(text)
    printed = printed_by("fill", "model.safetensors", "gaps.txt", seed=2, **options)
    for source in (text, Path("gaps.txt")):
        filled = chargen.fill_text("model.safetensors", source, seed=2, **options)
        assert "\0".join(one.text for one in filled) == printed


def test_writing_loads_neither_torch_nor_bars(printed_by: Callable[..., str]) -> None:
    program = (
        "import sys, chargen\n"
        "assert not {'torch', 'tqdm', 'click', 'numpy'} & set(sys.modules)\n"
        "chargen.generate('model.safetensors', length=3), chargen.fill('model.safetensors', 'a', 'e', length=1)\n"
        "assert not {'torch', 'tqdm', 'click'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_a_text_in_place_of_its_file_is_told_in_a_short_line(printed_by: Callable[..., str]) -> None:
    for text in ("a line\nand another", "long" * 5_000):
        with pytest.raises(DataError, match=r"a text itself must be put into a file$") as caught:
            chargen.train(text, **QUICK)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("wrong", [True, -1, 1.5, [], b"x", ""])
@pytest.mark.parametrize(
    "name", ["out", "resume", "state_in", "state_out", "sources", "preset", "prime", "unknown", "threshold", "device"]
)
def test_an_argument_of_a_wrong_type_is_named_in_one_line(
    printed_by: Callable[..., str], name: str, wrong: Any
) -> None:
    file = small_model()
    calls: dict[str, Callable[[], Any]] = {
        "out": lambda: chargen.train("text.txt", out=wrong, **QUICK),
        "resume": lambda: chargen.train(resume=wrong),
        "preset": lambda: chargen.train("text.txt", preset=wrong, **QUICK),
        "state_in": lambda: chargen.generate(file, length=2, state_in=wrong),
        "state_out": lambda: chargen.generate(file, length=2, state_out=wrong),
        "prime": lambda: chargen.generate(file, None if wrong == "" else wrong),
        "unknown": lambda: chargen.generate(file, "x", length=2, unknown=wrong),
        "sources": lambda: chargen.score(file, sources=wrong),
        "threshold": lambda: chargen.score(file, "abc", threshold=None if wrong is True else str(wrong)),
        "device": lambda: chargen.score(file, "abc", device=wrong),
    }
    with pytest.raises(ChargenError) as caught:
        calls[name]()
    assert re.match(rf"{name} is|an empty name|.* is no name|no file", str(caught.value)), caught.value
    assert str(caught.value).isprintable()
