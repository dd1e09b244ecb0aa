"""Random command lines and settings files, right and wrong."""

import dataclasses
import math
import os
import random
import re
from typing import Any

import click

from chargen.api.corpus_info import InfoConfig
from chargen.cli.main import NAMES, import_command
from chargen.data.corpus_config import CorpusConfig
from chargen.decoding.choose import SampleConfig
from chargen.model.config import ModelConfig
from chargen.settings import describe_range
from chargen.training.config import TrainConfig

CONFIGS = [CorpusConfig, ModelConfig, TrainConfig, SampleConfig, InfoConfig]
SMALL_RUN = ["--hidden-size", "4", "--embedding-size", "3", "--batch-size", "2", "--seq-length", "4", "--preview", "0",
             "--precision", "fp32", "--dropout", "0", "--weight-decay", "0"]  # fmt: skip
# A large value would really take its hours: of these only tiny ones, and those that are refused.
TINY = {
    "steps": ["1", "2"],
    "epochs": ["0.001", "0.01"],
    "minutes": ["0.001", "1e-9"],
    "batch_size": ["1", "3"],
    "seq_length": ["1", "2", "7"],
    "hidden_size": ["1", "5"],
    "embedding_size": ["1", "4"],
    "num_layers": ["1", "3"],
    "length": ["0", "1", "4"],
    "min_length": ["0", "1"],
    "max_length": ["0", "2", "3"],
    "num": ["1", "3"],
    "adapt": ["0", "1"],
    "preview": ["0", "3"],
    "threads": ["1"],
    "particles": ["1", "7", "50"],
    "order": ["1", "9"],
    "sample": ["0", "3"],
}
EXCLUSIVE = [{"minutes", "epochs", "steps"}, {"length", "min_length", "max_length"}]
"""One of these on the command line makes the others in a settings file void."""

LONE = os.fsdecode(b"\xff")
TEXTS = ["", "a", "abc", "a b", "\x1b[2J", "\u202ea", "\x9b", "\n", "-", "-1", "nan", "___", "{5}", "\ufeff", "漢",
         "x" * 5000]  # fmt: skip
PATHS = ["text.txt", "other.txt", "empty.txt", "bad.txt", "gaps.txt", "folder", "folder/inner.txt", "missing.txt", "",
         ".", "..", "-", "*.txt", "[", "text.txt/below", "loop", "nowhere", "locked.txt", "two\nlines.txt", "a\x1b[2Jb",
         "x" * 300, "/dev/null", "/proc/self/mem", "model", "one.safetensors", "run", "broken.gz", "--", "~",
         "out/deep/er"]  # fmt: skip
MODELS = ["model", "one.safetensors", "run"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-7", "latin-1", "idna", "hz", "iso2022_jp", "unicode_escape",
             "raw_unicode_escape", "undefined", "rot13", "hex", "mbcs", "klingon", "", "x" * 300, "\n"]  # fmt: skip
NOT_WHOLE = ["", " ", "x", "1.5", "nan", "inf", "1e400", "0x10", "1e30", "--1", "1,000", "\x1b[2J", "\n", "½",
             "9" * 5000]  # fmt: skip
NOT_A_NUMBER = ["", " ", "x", "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "0x10", "1/2", "0,5", "\u202e1", "\n"]
NOT_A_CHOICE = ["", " ", "x", "nan", "\x1b[2J", "\u202elru", "x" * 5000, "-"]
ODD_WORDS = ["--nothing", "-x", "", "--", "a\nb", "--\x1b[2J", "-", LONE, "--help", "--no-nothing=1", "--seed", "--out"]

# What TOML holds beside text and finite numbers.
NO_TEXT = ["1", "-1.5", "true", "nan", "[]", "[1]", "{}", "{a = {b = [1]}}", "1979-05-27", "07:32:00",
           "1979-05-27T07:32:00Z"]  # fmt: skip
NO_NUMBER = ['""', '"1"', '"\\u001b[2J"', "true", "nan", "-inf", "1e400", "[]", "[1]", "{a = 1}", "1979-05-27",
             "07:32:00", "1979-05-27T07:32:00-07:00"]  # fmt: skip
NO_FLAG = ['""', '"true"', "0", "1", "1.0", "nan", "[true]", "{}", "1979-05-27"]
NO_LIST = ["1", "true", "{}", "[1]", "[[]]", '["a", 1.5]', "[1979-05-27]"]
ODD_FILES = [
    *(b"", b"# nothing", b"\xef\xbb\xbfseed = 1", b"\xff\xfes\0e\0e\0d\0", b"seed = 1 # \xe9", b"\0", b"seed = 1\rx"),
    *(b"seed", b"seed = ", b"= 1", b"seed = 1\nseed = 2", b"seed = 01", b"seed = '\x1b'", b"seed = 1979-99-99"),
    *(b"[seed]\na = 1", b"[[stop]]\na = 1", b"seed.a = 1", b"a.b.c = 1", b"[table]\nseed = 1", b"SEED = 1"),
    *(b"--seed = 1", b"seeed = 1", b"help = true", b"config = 'x'", b"model = 3", b"sources = 'a'", b"sources = []"),
    *(b'"\\u001b[2J" = 1', b'"\\u202e" = 1', b'"" = 1', b'"a\\nb" = 1', b'"seed " = 1', b"a" * 50_000 + b" = 1"),
    *(b"seed = 0x" + b"f" * 5000, b"top_k = 0x" + b"f" * 5000, b"warmup = 0x" + b"f" * 5000),
    *(b"stop = [0x" + b"f" * 5000 + b"]", b"seed = " + b"9" * 5000, b"x = " + b"[" * 3000),
    *(b"seed = " + b"{a=" * 60 + b"1" + b"}" * 60, b"stop = [" + b"{a=" * 60 + b"1" + b"}" * 60 + b"]"),
    *(b"stop = " + b"[" * 90 + b"]" * 90, b"seed = " + b"a." * 3000 + b"b", b"seed" + b".a" * 3000 + b" = 1"),
]
"""Settings files that are no TOML, or whose keys and values nobody expects."""


def options_of(name: str) -> list[click.Option]:
    """All options of a command but those that act at once: --help, --config."""
    return [param for param in import_command(name).params if isinstance(param, click.Option) and not param.is_eager]


def called(option: click.Option) -> str:
    """The option's name as people write it."""
    return next(name for name in option.opts if name.startswith("--"))


def is_number(option: click.Parameter) -> bool:
    return isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)


def is_whole(option: click.Parameter) -> bool:
    return isinstance(option.type, click.types.IntParamType)


def is_path(option: click.Parameter) -> bool:
    named = isinstance(option.type, click.Path) or option.metavar in ("SOURCE", "FILE")
    return named or isinstance(option, click.Argument)


def allowed(option: click.Option) -> list[set[str]]:
    """What a refusal must say beside the name, each in one of some ways: every choice, or the range as help has it."""
    if isinstance(option.type, click.Choice):
        return [{str(choice)} for choice in option.type.choices]
    if not is_number(option):
        return []
    _, text = option.get_help_record(click.Context(click.Command(None))) or ("", "")
    match = re.search(r"\[(?:[^\]]*; )?([^\]]+)\]$", text)
    assert match, f"help tells no range of {called(option)}"
    nothing = {"choices": (), "low": None, "high": None, "above": None, "below": None}
    return [{match[1], describe_range(nothing | bounds(option))}]


def bounds(option: click.Option) -> dict[str, Any]:
    """`low`, `high`, `above` and `below`, where there are any."""
    kind = option.type
    if isinstance(kind, click.IntRange | click.FloatRange):
        return {"above" if kind.min_open else "low": kind.min, "below" if kind.max_open else "high": kind.max}
    fields = [field for config in CONFIGS for field in dataclasses.fields(config)]
    return next((dict(field.metadata) for field in fields if field.name == option.name), {})


def inside(option: click.Option) -> list[str]:
    """Numbers that the range allows, the first and the last among them."""
    if option.name in TINY:
        return TINY[option.name]
    rules = bounds(option)
    low, high = rules.get("low"), rules.get("high")
    if is_whole(option):
        return [str(low), str(low + 1), *([str(high)] if high is not None else ["7", str(10**30), str(10**400)])]
    least = low if low is not None else math.nextafter(rules["above"], math.inf)
    most = 1e308 if rules.get("below") is None else math.nextafter(rules["below"], -math.inf)
    return [repr(float(least)), repr(float(most if high is None else high)), "0.5"]


def outside(option: click.Option) -> list[str]:
    """Numbers that the range forbids, the nearest ones among them."""
    rules, whole, values = bounds(option), is_whole(option), []
    for key, way in (("low", -1), ("high", 1), ("above", -1), ("below", 1)):
        if (border := rules.get(key)) is None:
            continue
        near = border + way if whole else math.nextafter(border, way * math.inf)
        values += [border if key in ("above", "below") else near, border + way * 10**30]
        values.append(border + way * 10**400 if whole else border + way * 1e300)
    return [str(value) for value in values]


def right(option: click.Option, chance: random.Random) -> str:
    """A value that the option takes, as far as it alone can tell."""
    if isinstance(option.type, click.Choice):
        return str(chance.choice(option.type.choices))
    if is_number(option):
        return chance.choice(inside(option))
    if option.name == "encoding":
        return chance.choice(ENCODINGS)
    if is_path(option):
        return chance.choice([*MODELS, *PATHS, LONE + ".txt"])
    if option.name == "set_neurons":
        return chance.choice(["1:0=0.9", "1:3=-1e-3"])
    return chance.choice([*TEXTS, LONE])


def wrong(option: click.Option, chance: random.Random) -> str | None:
    """A value that the option must refuse, or None where it takes any text."""
    if isinstance(option.type, click.Choice):
        return chance.choice([*NOT_A_CHOICE, LONE])
    if not is_number(option):
        return None
    garbage = [*(NOT_WHOLE if is_whole(option) else NOT_A_NUMBER), LONE]
    return chance.choice(outside(option) if chance.random() < 0.5 else garbage)


def base(command: str, chance: random.Random, without: str | None = None) -> list[str]:
    """A command line that does a little and ends well, perhaps without an option and those it excludes."""
    words = {
        "train": ["text.txt", *SMALL_RUN, *chance.choice([["--steps", "2"], ["--epochs", "0.01"]])],
        "sample": ["model", "--length", "4"],
        "write": ["model", "--json-lines"],
        "fill": ["model", "--before", "ab", "--length", "2"],
        "eval": ["model", "text.txt"],
        "score": ["model", "--text", "abc"],
        "inspect": ["model", "text.txt"],
        "compare": ["run"],
        "corpus info": ["text.txt", "--sample", "9"],
        "novelty": ["model", "text.txt", "--length", "9"],
        "corpus cache": [],
        "export": ["model", "small.safetensors", "--quantize", "int8"],
        "corpus list": [],
        "corpus get": ["python"],
        "corpus make": ["counter", "--num", "3"],
    }.get(command, ["model"])
    group = next((group for group in EXCLUSIVE if without in group), {without})
    dropped = {"--" + name.replace("_", "-") for name in group if name}
    return command.split() + [
        word for before, word in zip(["", *words], words, strict=False) if not {before, word} & dropped
    ]


def any_line(chance: random.Random) -> tuple[list[str], dict[str, click.Option]]:
    """A command line of right, wrong, doubled, missing and unknown words; and the options whose values are wrong."""
    weights = [0.2 if name == "check" else 1 + len(options_of(name)) / 8 for name in NAMES]  # a check takes a second
    command = chance.choices([*NAMES], weights)[0]
    words, bad, first = base(command, chance), {}, len(command.split())
    if len(words) > first and chance.random() < 0.3:
        words[first] = chance.choice([*MODELS, *PATHS, LONE + ".txt"])
    for option in chance.choices(options_of(command), k=chance.randrange(5)):
        name, value = chance.choice([*option.opts, *option.secondary_opts]), right(option, chance)
        bad.pop(called(option), None)
        if chance.random() < 0.25 and (refused := wrong(option, chance)) is not None:
            value, bad[called(option)] = refused, option
        if option.is_flag:
            words += [name]
        else:
            words += [f"{name}={value}"] if chance.random() < 0.3 else [name, value]
    if chance.random() < 0.25:
        odd, place = chance.choice(ODD_WORDS), chance.choice([first, len(words)])
        words.insert(place, odd)
        bad = bad if place > first and odd not in ("--", "--help") else {}
    return words, bad


def quoted(text: str) -> str:
    """A text as TOML has it."""
    return '"' + "".join(char if char.isalnum() else f"\\U{ord(char):08x}" for char in text) + '"'


def right_in_a_file(option: click.Option, chance: random.Random) -> str:
    if option.is_flag:
        return chance.choice(["true", "false"])
    value = right(option, chance).encode(errors="ignore").decode()
    if is_number(option):
        return value
    value += "\0" * (chance.random() < 0.2 and not allowed(option))
    return f"[{quoted(value)}, {quoted('a')}]" if option.multiple else quoted(value)


def wrong_in_a_file(option: click.Option, chance: random.Random) -> str:
    if option.is_flag:
        return chance.choice(NO_FLAG)
    if option.multiple:
        return chance.choice(NO_LIST)
    if not is_number(option):
        return chance.choice([*NO_TEXT, *map(quoted, NOT_A_CHOICE * bool(allowed(option)))])
    huge = ["-" + "9" * 4000]
    if not is_whole(option) or bounds(option).get("high") is not None:
        huge += ["9" * 400, "0x" + "f" * 5000]
    return chance.choice([*outside(option), *NO_NUMBER, *huge])


def with_files() -> dict[str, list[click.Option]]:
    """The commands that take a settings file, and their other options."""
    return {name: options_of(name) for name in NAMES if any("--config" in p.opts for p in import_command(name).params)}


def setting_line(option: click.Option, value: str, chance: random.Random) -> str:
    """A line of a settings file."""
    name = called(option)[2:]
    return f"{chance.choice([name, name.replace('-', '_'), quoted(name)])} = {value}\n"


def any_file(options: list[click.Option], chance: random.Random) -> tuple[bytes, bool]:
    """A settings file of right and wrong values, and whether it is as it was: others have one byte changed."""
    content = "# settings\n"
    for option in chance.sample(options, chance.randrange(1, 5)):
        value = (wrong_in_a_file if chance.random() < 0.2 else right_in_a_file)(option, chance)
        content += setting_line(option, value, chance)
    data = content.encode()
    if chance.random() < 0.7:
        return data, True
    place = chance.randrange(len(data))
    return data[:place] + chance.randbytes(1) + data[place + 1 :], False
