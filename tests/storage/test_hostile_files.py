"""Files made to do harm: cut, flipped, or changed at will and signed anew, so that no checksum hides the parser.

Whatever a file holds, the answer is one short line, soon and in little memory; what is read after all can be used.
"""

import bisect
import dataclasses
import json
import math
import os
import random
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
from chargen.storage.quantize import quantize
from chargen.storage.run_state import FILE_NAME as STATE_NAME
from chargen.storage.run_state import FORMAT as STATE_FORMAT
from chargen.storage.run_state import RunState, read_run_state, save_run_state
from chargen.training.config import TrainConfig
from chargen.training.trainer import Trainer
from tests.pairs import some
from tests.small_models import small_model
from tests.storage.changes import (
    ANY,
    HEAVY,
    OF_MODELS,
    OF_STREAMS,
    REFUSED,
    mutants,
)
from tests.storage.drafts import Draft, models, states
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


@pytest.fixture
def run(run):
    Path("text.txt").write_text("abc def gh\n" * 40)
    return run


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


@pytest.mark.parametrize("count", [12, pytest.param(430, marks=slow)])
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
def test_what_can_just_be_parsed_is_refused_however_deep(tmp_path: Path, place: str) -> None:
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
    "piece",
    some(["[]", "1.5", "[" * 400 + "]" * 400, '{"":' * 400 + "1" + "}" * 400, '"ab"', "999", "{}"], 3),
    ids=range(7),
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


def test_as_many_characters_as_the_limit_says_can_be_saved(tmp_path: Path) -> None:
    file = small_model(num_layers=1, hidden_size=2, characters="".join(map(chr, range(0x20000, 0x20000 + 30_000))))
    save_model(tmp_path / "m", file)
    assert read_model(tmp_path / "m").vocabulary == file.vocabulary


CHANGED = {
    "a long character": lambda draft: draft.description["streams"][0].update(partial="f0" + "80" * 100_000),
    "an end that is none": lambda draft: draft.description["streams"][0]["followers"].update({"aa": "\ufffd"}),
    "a tail that is none": lambda draft: draft.description["streams"][0].update(tail="\ufffd"),
    "a tail that is a list": lambda draft: draft.description["streams"][0].update(tail=["a"]),
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
def test_a_run_of_a_changed_state_goes_on_or_says_why_in_one_line(run, run_folder: Path, what: str) -> None:
    shutil.copytree(run_folder, "run")
    state = read_run_state("run")
    RESUMED[what](state.settings, state.progress)
    save_run_state("run", state)
    code, out, err = run("train", "--resume", "run", "--steps", 3, "--preview", 0)
    assert (out, code in (0, 4)) == ("", True)
    assert code == 0 or err.splitlines()[-1].startswith("chargen: ")
    check_line(err.splitlines()[-1])
