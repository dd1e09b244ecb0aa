"""Files made to do harm: cut, flipped, or changed at will and signed anew, so that no checksum hides the parser.

Whatever a file holds, the answer is one short line, soon and in little memory; what is read after all can be used.
"""

import bisect
import dataclasses
import functools
import hashlib
import json
import math
import os
import random
import re
import shutil
import struct
import tracemalloc
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chargen.cli.terminal import escape_control
from chargen.data.corpus import Corpus
from chargen.errors import ChargenError, ModelFileError
from chargen.model.config import ModelConfig
from chargen.sampling.sampler import Sampler
from chargen.sampling.sampler_state import STATE_KIND
from chargen.storage import tensor_file
from chargen.storage.model_file import ModelFile, read_model, save_model
from chargen.storage.quantize import SCALE, quantize
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import FORMAT as STATE_FORMAT
from chargen.storage.run_state import RunState, read_run_state, save_run_state
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer
from tests.small_models import small_model
from tests.yardstick import is_read_soon

ROOM = 50_000_000
"""Bytes that reading may take beside the file itself."""
LENGTH = 500
slow = pytest.mark.slow
Random = random.Random


# What an attacked reader may do.


def answer(read: Callable[[], Any]) -> Any:
    """The value that was read, or the error that refused it, after a check of its message."""
    try:
        return read()
    except ModelFileError as raised:
        refusal = raised
    check_refusal(refusal, 4)
    return refusal


def check_refusal(error: ChargenError, code: int) -> None:
    """Check that an error has one line and this exit code."""
    assert error.exit_code == code
    check_line(str(error))


def check_line(message: str) -> None:
    """Check that a message is one short line without control characters."""
    assert len(message) <= LENGTH
    assert len(message.splitlines()) == 1
    assert all(unicodedata.category(sign) not in ("Cc", "Cs") for sign in escape_control(message, newlines=True))


def attacked(path: Path, read: Callable[[], Any], times: int = 1) -> Any:
    """Read a file, and check that this takes little time, and little memory beyond `times` the file's size."""
    assert is_read_soon(lambda: answer(read))
    tracemalloc.start()
    try:
        result = answer(read)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= times * path.stat().st_size + ROOM
    return result


def can_be_used(file: ModelFile, path: Path) -> None:
    """Check a mutant that is a good file by luck: it can be saved again, and writes a text or says why not."""
    characters = file.vocabulary.characters
    assert characters.encode().decode() == file.vocabulary.decode(file.vocabulary.encode(characters)) == characters
    assert (file.counts >= 0).all()
    assert file.counts.sum() > 0
    save_model(path, file)
    again = read_model(path)
    assert again.describe() == file.describe()
    assert all(np.array_equal(again.arrays[name], array) for name, array in file.arrays.items())
    try:
        assert len(Sampler(file, seed=1).generate(5)) == 5
    except ChargenError as error:
        check_refusal(error, 1)


def goes_on(sampler: Sampler) -> None:
    """Check a changed state that is good by luck: its text goes on, or an error says why not."""
    assert all(np.isfinite(part).all() for part in sampler.hidden_and_logits())
    try:
        samples = sampler.generate_all(3)
        assert all(math.isfinite(log_prob) for sample in samples for log_prob in sample.log_probs)
    except ChargenError as error:
        check_refusal(error, 1)


# Files in pieces.


@pytest.fixture
def run(run):
    Path("text.txt").write_text("abc def gh\n" * 40)
    return run


RAW = {"lists": ("[", "1", "]"), "tables": ('{"":', "1", "}"), "digits": ("9", "1", ""), "infinite": ("", "1e999", "")}


def written(value: Any) -> str:
    """JSON, where a text such as "@lists 900@" stands for what no Python value writes."""

    def raw(match: re.Match[str]) -> str:
        before, middle, after = RAW[match[1]]
        return before * int(match[2]) + middle + after * int(match[2])

    return re.sub(r'"@(\w+) (\d+)@"', raw, json.dumps(value, separators=(",", ":")))


class Draft:
    """A file that can be changed part by part, and gets its checksum at the end.

    Args:
        arrays: by name; what `lay` put into entries and body.
        description: without the checksum.
    """

    def __init__(self, arrays: dict[str, Any], description: dict[str, Any]) -> None:
        self.description = json.loads(tensor_file.canonical_json(description))
        self.lay(dict(arrays))
        self.edit_inner: Callable[[str], str] = str
        self.edit_outer: Callable[[str], str] = str
        self.edit_head: Callable[[bytes], bytes] = bytes
        self.size: int | None = None

    def lay(self, arrays: dict[str, Any]) -> None:
        """Replace the arrays."""
        packed = tensor_file.pack(arrays, {})
        start = 8 + struct.unpack("<Q", packed[:8])[0]
        self.arrays, self.entries, self.body = arrays, json.loads(packed[8:start]), packed[start:]
        del self.entries["__metadata__"]

    def signed(self) -> bytes:
        """The file, with a right checksum whatever else is wrong."""
        inner = f'{{"sha256":"{tensor_file.ZEROS}",{self.edit_inner(written(self.description)[1:])}'
        outer = written({"__metadata__": {tensor_file.KEY: inner}, **self.entries})
        head = self.edit_head(self.edit_outer(outer).encode("utf-8", "surrogatepass"))
        unsigned = struct.pack("<Q", len(head) if self.size is None else self.size) + head + self.body
        digest = hashlib.sha256(unsigned).hexdigest()
        return unsigned.replace(tensor_file._digest_field(tensor_file.ZEROS), tensor_file._digest_field(digest), 1)


@functools.cache
def models() -> list[ModelFile]:
    """Good files of all kinds, each of a few thousand bytes."""
    small: dict[str, Any] = {"num_layers": 1, "hidden_size": 5}
    files = [
        small_model(**small),
        small_model("gru", **small, characters="abcdefgh", folded="xyz"),
        small_model("gru", **small, unit="byte"),
        small_model(**small, bidirectional=True),
        small_model(num_layers=2, hidden_size=4, tie_weights=True),
    ]
    files += [dataclasses.replace(files[0], arrays=quantize(files[0].arrays, kind)) for kind in ("int8", "bf16")]
    settings = {"lr": 0.004, "seed": 0, "valid_fraction": 0.1, "test_fraction": 0.0}
    training = {"step": 12, "epoch": 0.5, "valid_loss": 1.5, "valid_whole": True, "settings": settings}
    return [dataclasses.replace(file, training=training) for file in files]


@functools.cache
def states() -> dict[int, Sampler]:
    """Samplers by the number of their model; all are in the middle of a text, and one is inside a character."""
    samplers = {number: Sampler(models()[number], seed=3, num=1 + number, no_repeat=3) for number in (0, 1)}
    samplers[3] = Sampler(models()[3], seed=3, direction="backward")
    for sampler in samplers.values():
        next(sampler.write())
    for seed in range(100):
        samplers[2] = Sampler(models()[2], seed=seed, num=3, no_repeat=2)
        next(samplers[2].write())
        if any(stream.partial for stream in samplers[2]._streams):
            return samplers
    raise AssertionError("no sampler stands inside a character")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after two steps."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text("abc def gh\n" * 40)
    corpus = Corpus.from_files(folder / "text.txt", cache=folder / "cache")
    config = TrainConfig(steps=2, batch_size=2, seq_length=4, precision="fp32", device="cpu", eval_every=1)
    for _ in Trainer(corpus, ModelConfig("lstm", 1, 4, 3), config, folder / "run").run():
        pass
    return folder / "run"


# Ways to change them.

TEXTS = ["", "x", "1", "@", "é", "\\", "'\"", "byte", "model", "utf-8"]
TEXTS += ["\0", "\ud800", "\U0001f600", "\n\x1b[31m\u202e"]
VALUES = [None, True, False, -1, 0, 1, 2, 255, 1.5, -0.0, 1e308, math.nan, math.inf, -math.inf, 10**9, 10**18, 2**31]
VALUES += [2**63, 2**64, -(2**63), 10**30, 10**400, [], {}, [[]], [None], {"": None}, [1, 2], ["a", "b"], {"a": 0}]
MARKS = ["@digits 30@", "@digits 4000@", "@digits 5000@", "@infinite 1@"]
DEPTHS = (3, 100, 500, 900, 100_000)


def hostile(draw: Random) -> Any:
    """A value that no field should hold."""
    kind = draw.randrange(8)
    if kind == 0:
        return f"@{draw.choice(['lists', 'tables'])} {draw.choice(DEPTHS)}@"
    if kind == 1:
        return draw.choice(MARKS)
    if kind == 2:
        return draw.choice(TEXTS) * draw.choice([1, 1, 300, 100_000])
    return draw.choice(VALUES)


def somewhere(draw: Random, table: Any) -> tuple[Any, Any]:
    """A random place in nested tables and lists: its container, and its key there."""
    while True:
        key = draw.choice(list(table)) if isinstance(table, dict) else draw.randrange(len(table))
        inside = table[key]
        if not isinstance(inside, (dict, list)) or not inside or draw.random() < 0.2:
            return table, key
        table = inside


def change_value(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draft.description)
    holder[key] = hostile(draw)


def change_number(draw: Random, draft: Draft) -> None:
    for _ in range(100):
        holder, key = somewhere(draw, draft.description)
        if isinstance(number := holder[key], (int, float)):
            others = [number + 1, number - 1, -number, number * 10**9, number + 0.5, number * 1e300, str(number)]
            holder[key] = draw.choice([*others, bool(number), [number], float(number)])
            return


def swap_values(draw: Random, draft: Draft) -> None:
    (table, key), (other_table, name) = (somewhere(draw, draft.description) for _ in range(2))
    table[key], other_table[name] = json.loads(json.dumps([other_table[name], table[key]]))


def drop_key(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    del holder[key]


def add_key(draw: Random, draft: Draft) -> None:
    holder, _ = somewhere(draw, draw.choice([draft.description, draft.entries]))
    name = draw.choice(["", "surprise", "sha256", "__class__", "\ud800", "\n", "quantize", "self", "k" * 100_000])
    if isinstance(holder, dict):
        holder[name] = hostile(draw)
    else:
        holder.append(hostile(draw))


def go_deep(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    holder[key] = f"@{draw.choice(['lists', 'tables'])} {draw.choice([draw.randrange(1000), 100_000])}@"


def go_long(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draw.choice([draft.description, draft.entries]))
    holder[key] = draw.choice(TEXTS) * draw.choice([1000, 100_000, 1_000_000])


def change_entry(draw: Random, draft: Draft) -> None:
    holder, key = somewhere(draw, draft.entries)
    holder[key] = hostile(draw)


def change_shape(draw: Random, draft: Draft) -> None:
    entry = draft.entries[draw.choice(list(draft.entries))]
    shape = entry["shape"]
    others = [shape[::-1], [*shape, 1], shape[1:], [-side for side in shape], [float(side) for side in shape]]
    others += [[side * 10**9 for side in shape], [0, *shape], [True, *shape], [math.prod(shape)], [2**62, 4]]
    entry["shape"] = draw.choice(others)


def change_offsets(draw: Random, draft: Draft) -> None:
    entry, other = (draft.entries[draw.choice(list(draft.entries))] for _ in range(2))
    begin, end = entry["data_offsets"]
    size = len(draft.body)
    others = [other["data_offsets"], [end, begin], [begin - size, end - size], [-8, end], [begin, end + 4], [end, end]]
    others += [[size, size + end - begin], [begin + 10**18, end + 10**18], [float(begin), float(end)], [begin + 1, end]]
    entry["data_offsets"] = draw.choice(others)


def change_type(draw: Random, draft: Draft) -> None:
    """Give an array a wrong type: in its entry only, or in entry and bytes."""
    name = draw.choice(list(draft.entries))
    if draw.random() < 0.5:
        draft.entries[name]["dtype"] = draw.choice(["F64", "F32", "BF16", "I8", "F16", "U8", "I64", "f4", "", "F32 "])
    else:
        dtype = draw.choice(["<f8", "<f4", "<u2", "|i1"])
        with np.errstate(all="ignore"):
            draft.lay({**draft.arrays, name: np.ones(draft.arrays[name].shape).astype(dtype)})


def name_twice(draw: Random, draft: Draft) -> None:
    name = draw.choice(list(draft.entries))
    key, (holder, within) = draw.choice(list(draft.description)), somewhere(draw, draft.description)
    again = f",{written(name)}:{written(draft.entries[name])}}}"
    if draw.random() < 0.3:
        draft.edit_outer = lambda text: text[:-1] + draw.choice([again, f',"__metadata__":{{}}{again}'])
    elif draw.random() < 0.5 or not isinstance(holder, dict):
        draft.edit_inner = lambda text: f"{text[:-1]},{written(key)}:{written(draft.description[key])}}}"
    else:
        pair = f"{written(within)}:"
        draft.edit_inner = lambda text: text.replace(pair, f"{pair}1,{pair}", 1)


def change_arrays(draw: Random, draft: Draft) -> None:
    """Remove, add or exchange arrays."""
    arrays, (name, other_name) = dict(draft.arrays), draw.sample(list(draft.arrays), 2)
    kind = draw.randrange(4)
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[draw.choice([name + SCALE, "", "\n", "k" * 1000, "\ud800", "more"])] = arrays[other_name]
    elif kind == 2:
        arrays[name], arrays[other_name] = arrays[other_name], arrays[name]
    else:
        arrays[name] = arrays[name][: draw.randrange(len(arrays[name]))]
    draft.lay(arrays)


def add_empty_arrays(draw: Random, draft: Draft) -> None:
    end = len(draft.body)
    entry = {"dtype": "F32", "shape": [0], "data_offsets": draw.choice([[end, end], [0, 0]])}
    draft.entries |= {f"empty.{number}": entry for number in range(20_000)}


def change_size(draw: Random, draft: Draft) -> None:
    draft.size = draw.choice([0, 1, 7, 2**32, 2**63, 2**64 - 1, 10**9, tensor_file.MAX_HEADER, draw.randrange(6000)])


def change_end(draw: Random, draft: Draft) -> None:
    tail = draw.randbytes(draw.choice([1, 4, 8, 1000]))
    draft.body = draw.choice([draft.body + tail, draft.body[: -len(tail)], b"", tail + draft.body])


def change_weights(draw: Random, draft: Draft) -> None:
    body = bytearray(draft.body)
    for _ in range(draw.choice([1, 1, 100])):
        bits = draw.choice([0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, draw.getrandbits(32)])
        body[(at := draw.randrange(0, len(body) - 3, 4)) : at + 4] = struct.pack("<I", bits)
    draft.body = bytes(body)


def splice(draw: Random, draft: Draft) -> None:
    """Remove, insert or move parts of the JSON."""

    def spliced(text: str) -> str:
        for _ in range(draw.randint(1, 4)):
            at, other = draw.randrange(len(text)), draw.randrange(len(text))
            signs = "".join(draw.choices('{}[]",:0123456789.eE-+\\u null true NaN\0é\ud800', k=draw.randrange(6)))
            new = draw.choice(["", signs, text[other : other + draw.randrange(40)]])
            text = text[:at] + new + text[at + draw.choice([0, 1, 1, 2, 8, 40]) :]
        return text

    if draw.random() < 0.7:
        draft.edit_inner = spliced
    else:
        draft.edit_outer = lambda text: text[:200] + spliced(text[200:])  # the checksum stays whole


def change_bytes(draw: Random, draft: Draft) -> None:
    """Replace the JSON by bytes that are no JSON in UTF-8."""

    def changed(head: bytes) -> bytes:
        at = draw.randrange(200, len(head))
        others = [head[:at] + draw.randbytes(3) + head[at:], b"\xef\xbb\xbf" + head, head.decode().encode("utf-16")]
        return draw.choice([*others, head[:at] + b"\xed\xa0\x80" + head[at:], head + b"\0" * 8, head[:-1], b""])

    draft.edit_head = changed


def change_config(draw: Random, draft: Draft) -> None:
    config = draft.description["config"]
    sizes = [0, -1, 1, 4, 6, 64, 65, 65536, 10**9, 2**63, 5.0, True, None, "5", [5]]
    for name in draw.sample(["hidden_size", "embedding_size", "num_layers"], draw.randint(1, 3)):
        config[name] = draw.choice(sizes)
    config |= draw.choice([{}, {"cell": "gru"}, {"cell": "lstm"}, {"bidirectional": True}, {"tie_weights": True}])


def change_counts(draw: Random, draft: Draft) -> None:
    size = len(draft.description["counts"])
    number = draw.choice([0, -1, 2**62, 2**63, 10**30, 1.0, 1e308, True, None, "1", [1], math.nan, "@infinite 1@"])
    others = [[number] * size, [1] * (size - 1) + [number], [1] * (size + 1), [1] * (size - 1), [], None, "1" * size]
    draft.description["counts"] = draw.choice([*others, {str(place): 1 for place in range(size)}])


def change_training(draw: Random, draft: Draft) -> None:
    training = draft.description["training"]
    for name in draw.sample(list(training), 2):
        training[name] = hostile(draw)
    draft.description["training"] = draw.choice([training, training, training, [training], hostile(draw)])
    draft.description["reading"] |= {draw.choice(["encoding", "errors", "newline"]): draw.choice([hostile(draw), "lf"])}


ENCODINGS = ["rot13", "zlib", "idna", "undefined", "mbcs", "aliases", "utf-16", "e" * 100_000, "\ud800", "a\0b", "../x"]


def change_reading(draw: Random, draft: Draft) -> None:
    draft.description["reading"]["encoding"] = draw.choice(ENCODINGS)


def change_scales(draw: Random, draft: Draft) -> None:
    """Change the scales of int8, or claim int8 for other weights."""
    draft.description["quantize"] = draw.choice(["int8", "int8", "bf16", "int4", "", None, 8, ["int8"], "q" * 1000])
    arrays = dict(draft.arrays)
    for name in [name for name in arrays if name.endswith(SCALE)] or [next(iter(arrays)) + SCALE]:
        number = draw.choice([math.nan, math.inf, 0.0, -1.0, 3e38, 1e-45, 1.0])
        size = len(arrays[name.removesuffix(SCALE)]) + draw.choice([0, 0, 0, 1])
        arrays[name] = np.full(size, number, draw.choice(["<f4", "<f4", "<f4", "<f8", "<u2"]) if number == 1 else "<f4")
    draft.lay(arrays)


def change_vocabulary(draw: Random, draft: Draft) -> None:
    stored = draft.description["vocabulary"]
    model = stored["tokenizer"]["model"]
    names = sorted(model["vocab"], key=model["vocab"].__getitem__)
    many = [chr(0x4E00 + number) for number in range(20_000)]
    twice = [draw.choice(names) for _ in names]
    vocabularies: list[Any] = [draw.sample(names, len(names)), twice, [*names[:-1], "\udfff"], [], many, ["<unk>"]]
    vocabularies += [[*names[:-1], "ab"], [""], [str(number) for number in range(len(names))], names[:-1]]
    vocabularies = [{name: number for number, name in enumerate(vocabulary)} for vocabulary in vocabularies]
    numbers = [0.5, -1, 2**63, True, None, "0", [0], "@lists 900@"]
    vocabularies += [dict.fromkeys(names, number) for number in numbers] + [names, None, "ab", 5, [["a", 0]]]
    vocabularies += [{name: float(number) for number, name in enumerate(names)}]
    foldings: list[Any] = [names[0], "aab", "ba", "\udfff", "".join(many), "a" * 100_000, names, 5, None, "xyz", "\0"]
    units = ["byte", "character", "word", "", None, 5, ["byte"], "u" * 100_000, "\n\x1b", "@lists 400@"]
    kind = draw.randrange(5)
    if kind == 0:
        stored["folded"] = draw.choice(foldings)
    elif kind == 1:
        stored["unit"] = draw.choice(units)
    elif kind == 2:
        model |= draw.choice([{"merges": [["a", "b"]]}, {"type": "WordLevel"}, {"merges": None}, {"type": ["BPE"]}])
    else:
        model["vocab"] = draw.choice(vocabularies)
        if draw.random() < 0.5:
            draft.description["counts"] = [1] * (len(model["vocab"]) if isinstance(model["vocab"], (dict, list)) else 1)


STREAM = {
    "draws": [-1, 2**63 - 1, 2**63, 1.0, True, "1"],
    "partial": ["f0", "f09f", "f09f98", "80", "8080", "ff", "zz", "f0" + "80" * 500_000, b"".hex(), 5, "\ud800"],
    "log_prob": [10**400, "nan", "1e999", "y" * 100_000, math.nan, "@infinite 1@", None, -1e308],
    "tail": ["\ufffd", "\ud800", "z", "a" * 100_000, 5, ["a"]],
    "no_repeat": [0, 2, 3, 2**63, "3", None],
    "recent": ["\ufffd\ufffd", "a", "z", "a" * 100_000, "\udfff", 5],
    "followers": [{"ab": "\ufffd"}, {"\ud800": "a"}, {"": "abc"}, {"ab": 5}, [], {"ab": "z"}, {"a" * 10_000: "a"}],
}


def change_stream(draw: Random, draft: Draft) -> None:
    streams = draft.description["streams"]
    for name in draw.sample(list(STREAM), 2):
        draw.choice(streams)[name] = draw.choice(STREAM[name])
    key = draw.choice(["seed", "num", "direction", "weights", "config"])
    draft.description[key] = draw.choice([draft.description[key]] * 8 + ["a\nb", "x" * 100_000, hostile(draw)])
    draft.description["streams"] = draw.choice([streams] * 8 + [streams * 2, [], streams[0], "ab", [[]]])


def change_state(draw: Random, draft: Draft) -> None:
    """Replace numbers by others of another type, or too large for the type they become."""
    name = draw.choice(list(draft.arrays))
    number = draw.choice([1e300, -1e300, 3e38, 1, 100])
    with np.errstate(all="ignore"):
        dtype = draw.choice(["<f8", "<f8", "<f4", "<u2", "|i1"]) if abs(number) == 1 else "<f8"
        draft.lay({**draft.arrays, name: np.full(draft.arrays[name].shape, number).astype(dtype)})


HEAVY = [add_empty_arrays]
REFUSED = [change_shape, change_offsets, name_twice, change_size, change_end, *HEAVY]
"""Nothing of it can be good by luck, unless it changes nothing."""
ANY = [change_value, change_number, swap_values, drop_key, add_key, go_deep, go_long, change_entry, change_shape]
ANY += [change_offsets, change_type, name_twice, change_arrays, change_size, change_end, change_weights, splice]
ANY += [change_bytes]
OF_MODELS = [change_config, change_counts, change_training, change_reading, change_scales, change_vocabulary]
OF_STREAMS = [change_stream, change_state]


def mutants(kinds: list[Any], kind: Any, count: int, drafts: list[tuple[dict[str, Any], dict[str, Any]]]):
    """Yield mutants of drafts, some of them changed twice: number, index of the draft, and bytes."""
    for number in range(max(1, count // 10) if kind in HEAVY else count):
        draw = Random(f"{kind.__name__} {number}")
        index = draw.randrange(len(drafts))
        draft = Draft(*drafts[index])
        try:
            if draw.random() < 0.25 and kind not in REFUSED:
                draw.choice(kinds)(draw, draft)
            kind(draw, draft)
            data = draft.signed()
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):  # the first broke what this needs
            draft = Draft(*drafts[index])
            kind(draw, draft)
            data = draft.signed()
        if kind not in REFUSED or data != Draft(*drafts[index]).signed():
            yield number, index, data


# The attacks.


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=slow)])
def test_a_model_file_cut_at_any_byte_is_refused(tmp_path: Path, number: int) -> None:
    path = tmp_path / "m"
    save_model(path, models()[number])
    size = path.stat().st_size
    assert size <= 32_000
    assert isinstance(answer(lambda: read_model(path)), ModelFile)
    for cut_size in reversed(range(size)):
        os.truncate(path, cut_size)
        assert isinstance(answer(lambda: read_model(path)), ModelFileError), cut_size


@pytest.mark.parametrize("number", range(4))
def test_a_model_file_with_any_bit_flipped_is_refused(tmp_path: Path, number: int) -> None:
    draw, path = Random(number), tmp_path / "m"
    save_model(path, models()[number])
    data = path.read_bytes()
    assert len(data) <= 32_000
    with open(path, "r+b", buffering=0) as file:
        for _ in range(500):
            place, bit = draw.randrange(len(data)), draw.randrange(8)
            os.pwrite(file.fileno(), bytes([data[place] ^ 1 << bit]), place)
            assert isinstance(answer(lambda: read_model(path)), ModelFileError), (place, bit)
            os.pwrite(file.fileno(), data[place : place + 1], place)
    assert isinstance(answer(lambda: read_model(path)), ModelFile)


@pytest.mark.parametrize("count", [22, pytest.param(430, marks=slow)])
@pytest.mark.parametrize("kind", ANY + HEAVY + OF_MODELS, ids=lambda kind: kind.__name__)
def test_a_model_file_changed_and_signed_anew_is_refused_or_can_be_used(tmp_path: Path, run, kind, count: int) -> None:
    drafts, path = [(file.arrays, file.describe()) for file in models()], tmp_path / "m"
    for number, _, data in mutants(ANY + OF_MODELS, kind, count, drafts):
        path.write_bytes(data)
        try:
            result = attacked(path, lambda: read_model(path))
            if isinstance(result, ModelFile):
                assert kind not in REFUSED
                can_be_used(result, tmp_path / "again")
                assert run("info", "m")[0] == 0
        except Exception as error:
            error.add_note(f"mutant {number}")
            raise


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=slow)])
@pytest.mark.parametrize("kind", ANY + HEAVY + OF_STREAMS, ids=lambda kind: kind.__name__)
def test_a_sampler_state_changed_and_signed_anew_is_refused_or_goes_on(tmp_path: Path, kind, count: int) -> None:
    drafts, path = [], tmp_path / "s"
    for _, sampler in sorted(states().items()):
        sampler.save_state(path)
        shapes = {f"state.{layer}": part.shape for layer, part in enumerate(sampler._state)}
        shapes["logits"] = sampler._logits.shape
        arrays, description = tensor_file.load(path, STATE_KIND, lambda _, shapes=shapes: shapes)
        drafts.append((arrays, {key: value for key, value in description.items() if key != "sha256"}))
    for number, index, data in mutants(ANY + OF_STREAMS, kind, count, drafts):
        path.write_bytes(data)
        like = states()[index]
        sampler = Sampler(
            models()[index], like.config, num=like.num, seed=1, direction=like.direction, engine=like.engine
        )
        try:
            # Where runs must not be repeated, a state has no small limit.
            times = 44 if like.config.no_repeat else 1
            if not isinstance(attacked(path, lambda sampler=sampler: sampler.load_state(path), times), ModelFileError):
                assert kind not in REFUSED
                goes_on(sampler)
        except Exception as error:
            error.add_note(f"mutant {number}")
            raise


@pytest.mark.parametrize("count", [6, pytest.param(100, marks=slow)])
@pytest.mark.parametrize("kind", ANY + HEAVY, ids=lambda kind: kind.__name__)
def test_a_run_state_changed_and_signed_anew_is_refused_or_read(tmp_path: Path, run_folder: Path, kind, count) -> None:
    state = read_run_state(run_folder)
    described = {"kind": "run", "format": STATE_FORMAT, "progress": state.progress, "settings": state.settings}
    for number, _, data in mutants(ANY, kind, count, [(state.arrays, described)]):
        (tmp_path / STATE_NAME).write_bytes(data)
        try:
            result = attacked(tmp_path / STATE_NAME, lambda: read_run_state(tmp_path))
            if isinstance(result, RunState):
                assert kind not in REFUSED
                assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in result.arrays.values())
        except Exception as error:
            error.add_note(f"mutant {number}")
            raise


DEEP = {
    "size": lambda stored, deep: stored["config"].update(hidden_size=deep),
    "encoding": lambda stored, deep: stored["reading"].update(encoding=deep),
    "unit": lambda stored, deep: stored["vocabulary"].update(unit=deep),
    "ids": lambda stored, deep: stored["vocabulary"]["tokenizer"]["model"].update(vocab={"a": deep, "b": deep}),
    "training": lambda stored, deep: stored["training"].update(step=deep),
    "kind": lambda stored, deep: stored.update(kind=deep),
    "format": lambda stored, deep: stored.update(format=deep),
}


def too_deep(depth: int) -> bool:
    """Whether Python's own parser refuses."""
    try:
        json.loads("[" * depth + "]" * depth)
    except RecursionError:
        return True
    return False


@pytest.mark.parametrize("place", DEEP)
def test_what_is_just_not_too_deep_to_be_parsed_is_not_too_deep_to_be_refused(tmp_path: Path, place: str) -> None:
    deepest, path = bisect.bisect_left(range(200_000), True, key=too_deep), tmp_path / "m"
    for depth in range(max(1, deepest - 40), deepest + 1):
        for form in ("lists", "tables"):
            draft = Draft(models()[0].arrays, models()[0].describe())
            DEEP[place](draft.description, f"@{form} {depth}@")
            path.write_bytes(draft.signed())
            result = answer(lambda: read_model(path))
            assert place == "training" or isinstance(result, ModelFileError)


def test_a_vocabulary_of_a_hundred_thousand_characters_is_refused_at_once(tmp_path: Path) -> None:
    draft = Draft(models()[0].arrays, models()[0].describe())
    characters = [chr(code) for code in range(0x10000, 0x10000 + 10**5)]
    draft.description["vocabulary"]["tokenizer"]["model"]["vocab"] = dict(zip(characters, range(10**5), strict=True))
    draft.description["counts"] = [1] * 10**5
    (tmp_path / "m").write_bytes(draft.signed())
    assert isinstance(attacked(tmp_path / "m", lambda: read_model(tmp_path / "m")), ModelFileError)


@pytest.mark.parametrize(
    "piece", ["[]", "{}", "[" * 400 + "]" * 400, '{"":' * 400 + "1" + "}" * 400, "1.5", '"ab"', "999"], ids=range(7)
)
def test_the_largest_header_that_is_parsed_takes_little_memory(tmp_path: Path, piece: str) -> None:
    draft = Draft(models()[0].arrays, models()[0].describe())
    draft.description["training"] = {"a": "@"}
    pieces = (tensor_file.MAX_HEADER - 10_000) // (len(json.dumps(piece)) - 1)
    draft.edit_inner = lambda text: text.replace('"@"', "[" + ",".join([piece] * pieces) + "]")
    (tmp_path / "m").write_bytes(draft.signed())
    assert (tmp_path / "m").stat().st_size > tensor_file.MAX_HEADER - 20_000
    assert isinstance(attacked(tmp_path / "m", lambda: read_model(tmp_path / "m")), ModelFile)


@pytest.mark.parametrize(
    ("settings", "limit"), [({}, 1_001_000), ({"num": 7}, 1_007_000), ({"no_repeat": 3}, 51_001_000)]
)
def test_a_samplers_state_has_no_larger_header_than_the_sampler_may_need(
    tmp_path: Path, settings: dict[str, int], limit: int
) -> None:
    sampler, path = Sampler(models()[0], seed=1, **settings), tmp_path / "s"
    path.write_bytes(struct.pack("<Q", limit + 1) + b"[" * (limit + 1))
    assert "does not fit" in str(attacked(path, lambda: sampler.load_state(path)))
    path.write_bytes(struct.pack("<Q", limit) + b"[]" + b" " * (limit - 2))
    assert "table of arrays" in str(answer(lambda: sampler.load_state(path)))


def test_as_many_characters_as_the_headers_limit_says_can_be_saved_and_read(tmp_path: Path) -> None:
    file = small_model(num_layers=1, hidden_size=2, characters="".join(map(chr, range(0x20000, 0x20000 + 30_000))))
    save_model(tmp_path / "m", file)
    assert read_model(tmp_path / "m").vocabulary == file.vocabulary


CHANGED = {
    "a long character": lambda draft: draft.description["streams"][0].update(partial="f0" + "80" * 100_000),
    "an end that is none": lambda draft: draft.description["streams"][0]["followers"].update({"aa": "\ufffd"}),
    "a tail that is none": lambda draft: draft.description["streams"][0].update(tail="\ufffd"),
    "wider state": lambda draft: draft.lay(draft.arrays | {"state.0": draft.arrays["state.0"].astype(np.float64)}),
    "narrower logits": lambda draft: draft.lay(draft.arrays | {"logits": draft.arrays["logits"].astype(np.float32)}),
}


@pytest.mark.parametrize(("number", "what"), [*((0, what) for what in CHANGED), (2, "a long character")])
def test_a_state_that_no_sampler_saved_is_refused(tmp_path: Path, number: int, what: str) -> None:
    sampler, path = states()[number], tmp_path / "s"
    sampler.save_state(path)
    before = path.read_bytes()
    sampler.load_state(path)
    shapes = {f"state.{layer}": part.shape for layer, part in enumerate(sampler._state)}
    arrays, description = tensor_file.load(path, STATE_KIND, lambda _: shapes | {"logits": sampler._logits.shape})
    draft = Draft(arrays, {key: value for key, value in description.items() if key != "sha256"})
    CHANGED[what](draft)
    path.write_bytes(draft.signed())
    assert isinstance(attacked(path, lambda: sampler.load_state(path)), ModelFileError)
    sampler.save_state(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [str, float, lambda size: size + 0.5, lambda size: [size]])
def test_a_number_of_a_runs_state_that_only_looks_like_one_is_refused(tmp_path: Path, run_folder: Path, change) -> None:
    for table, name in (("settings", "vocabulary_size"), ("training", "batch_size")):
        state = read_run_state(run_folder)
        settings = state.settings if table == "settings" else state.settings[table]
        settings[name] = change(settings[name])
        save_run_state(tmp_path, state)
        assert isinstance(answer(lambda: read_run_state(tmp_path)), ModelFileError)


TRAIN = ["train", "text.txt", "--steps", 2, "--batch-size", 2, "--seq-length", 4, "--precision", "fp32", "--preview", 0]
COMMANDS = [["info", "m"], ["sample", "m", "--seed", 1], ["eval", "m", "text.txt"], [*TRAIN, "--init-from", "m"]]
BAD = {
    "cut": lambda draft: draft.signed()[:-1],
    "flipped": lambda draft: draft.signed()[:-1] + bytes([draft.signed()[-1] ^ 1]),
    "empty": lambda draft: b"",
    "size": lambda draft: draft.description["config"].update(hidden_size=10**9),
    "kind": lambda draft: draft.description.update(kind="\n\x1b[31m"),
    "name": lambda draft: draft.entries.update({"\n\x1b[31m": draft.entries["output.bias"]}),
    "unit": lambda draft: draft.description["vocabulary"].update(unit="\n\x1b[31m" * 10_000),
    "deep": lambda draft: draft.description.update(training="@lists 100000@"),
    "infinite": lambda draft: draft.description["training"].update(step="@infinite 1@"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_refuses_a_bad_model_file_in_one_line(tmp_path: Path, run, command: list[Any], what: str) -> None:
    draft = Draft(models()[0].arrays, models()[0].describe())
    data = BAD[what](draft)
    (tmp_path / "m").write_bytes(draft.signed() if data is None else data)
    assert isinstance(answer(lambda: read_model("m")), ModelFileError)
    code, out, err = run(*command)
    assert (code, out) == (4, "")
    assert err.startswith("chargen: m is not a good model file: ")
    assert err.count("\n") == 1
    check_line(err[:-1])


@pytest.mark.parametrize("fraction", ["x" * 1000, -1, True, [[]], 1e308, {"a": 0}])
def test_a_share_of_the_text_that_is_none_is_the_model_files_fault(tmp_path: Path, run, fraction: Any) -> None:
    settings = {"valid_fraction": fraction, "test_fraction": 0.0}
    save_model(tmp_path / "m", dataclasses.replace(models()[0], training={"settings": settings}))
    code, out, err = run("eval", "m", "text.txt", "--part", "valid")
    assert (code, out, err.count("\n")) == (4, "", 1)
    check_line(err[:-1])


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("command", COMMANDS[1:], ids=lambda command: command[0])
def test_weights_too_large_to_compute_with_are_told(tmp_path: Path, run, command: list[Any], kind: str) -> None:
    arrays = quantize(models()[0].arrays, "int8") if kind == "int8" else models()[0].arrays
    large = {name: array if array.dtype == np.int8 else np.full_like(array, 3e38) for name, array in arrays.items()}
    save_model(tmp_path / "m", dataclasses.replace(models()[0], arrays=large))
    code, out, err = run(*command)
    assert code in (1, 4, 5)
    assert "nan" not in out
    assert err.splitlines()[-1].startswith("chargen: ")
    check_line(err.splitlines()[-1])


RESUMED = {
    "no key": lambda settings, progress: settings["corpus"].pop("key"),
    "key": lambda settings, progress: settings["corpus"].update(key=7, sources={"train": [], "valid": [], "test": []}),
    "path": lambda settings, progress: settings["corpus"].update(key="a\0b" * 1000, sources={}),
    "corpus": lambda settings, progress: settings["corpus"].update(config=5),
    "sources": lambda settings, progress: settings["corpus"].update(sources=5),
    "source": lambda settings, progress: settings["corpus"]["sources"].update(train=[5]),
    "known": lambda settings, progress: settings["corpus"].update(known={"characters": "ba"}),
    "more known": lambda settings, progress: settings["corpus"].update(known={"surprise": 5}),
    "machine": lambda settings, progress: settings["machine"].update(surprise=1),
    "rate": lambda settings, progress: settings["training"].update(lr="x" * 1000),
    "share": lambda settings, progress: settings["corpus"]["config"].update(valid_fraction=5.0),
    "more settings": lambda settings, progress: settings["training"].update(surprise=5.0),
    "batch": lambda settings, progress: settings["training"].update(batch_size=2.5),
    "step": lambda settings, progress: progress.update(step=-5),
    "large step": lambda settings, progress: progress.update(step=10**400),
    "applied": lambda settings, progress: progress.update(applied=-1),
    "metrics": lambda settings, progress: progress.update(metrics_bytes=-3),
    "more counters": lambda settings, progress: progress.update(surprise=0),
}


@pytest.mark.parametrize("what", RESUMED)
def test_a_run_whose_state_was_changed_goes_on_or_is_told_why_not_in_one_line(run, run_folder: Path, what: str) -> None:
    shutil.copytree(run_folder, "run")
    state = read_run_state("run")
    RESUMED[what](state.settings, state.progress)
    save_run_state("run", state)
    code, out, err = run("train", "--resume", "run", "--steps", 3, "--preview", 0)
    assert (out, code in (0, 4)) == ("", True)
    assert code == 0 or err.splitlines()[-1].startswith("chargen: ")
    check_line(err.splitlines()[-1])
