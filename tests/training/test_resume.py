"""k steps, save, load, m steps: byte for byte the same as k + m steps. And the test of that test."""

import random
import shutil
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from chargen.data.corpus import Corpus
from chargen.errors import DataError, ModelFileError, SettingError
from chargen.storage import tensor_file
from chargen.storage.model_file import read_model
from chargen.storage.run_state import FILE_NAME, RunState, read_run_state, save_run_state
from chargen.training.counters import Counters
from chargen.training.trainer import Trainer
from tests.pairs import all_pairs, some
from tests.runs import (
    COUNTER_CLOCKS,
    TEXT,
    assert_same_runs,
    bare_state,
    config,
    corpus,
    long_rows,
    metrics,
    model,
    run_until,
    two_ways,
    whole,
)


@pytest.mark.parametrize(
    ("cell", "num_layers", "batching", "dropout"),
    all_pairs(("lstm", "gru"), (1, 2, 3), ("consecutive", "random"), (0.0, 0.3)),
)
def test_resume_is_exact(cell: str, num_layers: int, batching: str, dropout: float, tmp_path: Path) -> None:
    shape = model(cell, num_layers, dropout=dropout, input_dropout=dropout / 2)
    train = config(steps=12, batching=batching)
    whole(tmp_path / "whole", shape, train)
    run_until(Trainer(corpus(), shape, train, tmp_path / "parts"), 5)
    run_until(Trainer.resume(tmp_path / "parts", corpus()), 8)
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("stop", some(range(1, 25), 4))
def test_resume_is_exact_from_every_step(stop: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    reference = tmp_path_factory.getbasetemp() / "reference"
    if not reference.exists():
        whole(reference, model(), config())
    run_until(Trainer(corpus(), model(), config(), tmp_path), stop)
    for _ in Trainer.resume(tmp_path, corpus()).run():
        pass
    assert_same_runs(reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "batching", "both", "dropout"),
    list(product(("lstm", "gru"), ("consecutive", "random"), (False, True), (0.0, 0.3))),
)
def test_resume_is_exact_from_random_steps(
    cell: str, batching: str, both: bool, dropout: float, tmp_path: Path
) -> None:
    shape = model(cell, dropout=dropout, input_dropout=dropout / 2, bidirectional=both)
    trainer = Trainer(corpus(), shape, long_rows(steps=70, batching=batching, state_reset=0.2), tmp_path / "whole")
    stops = random.Random(f"{cell} {batching} {both} {dropout}").sample(range(1, 70), 50)
    for progress in trainer.run():
        if progress.step in stops and progress.doing == "training":
            trainer.save()
            shutil.copytree(tmp_path / "whole", tmp_path / str(progress.step))
    for stop in stops:
        resumed = Trainer.resume(tmp_path / str(stop), corpus())
        assert resumed.counters.step == stop
        for _ in resumed.run():
            pass
        assert_same_runs(tmp_path / "whole", tmp_path / str(stop))


@pytest.mark.parametrize(
    ("cell", "num_layers", "batching", "dropout"),
    all_pairs(("lstm", "gru"), (1, 2), ("consecutive", "random"), (0.0, 0.3)),
)
def test_resume_is_exact_in_two_ways(cell: str, num_layers: int, batching: str, dropout: float, tmp_path: Path) -> None:
    shape = two_ways(cell, num_layers, dropout=dropout, input_dropout=dropout / 2)
    train = long_rows(steps=12, batching=batching, state_reset=0.3)
    whole(tmp_path / "whole", shape, train)
    run_until(Trainer(corpus(), shape, train, tmp_path / "parts"), 5)
    run_until(Trainer.resume(tmp_path / "parts", corpus()), 8)
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("stop", some(range(1, 13), 4))
def test_resume_is_exact_in_two_ways_from_every_step(
    stop: int, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reference = tmp_path_factory.getbasetemp() / "reference two ways"
    if not reference.exists():
        whole(reference, two_ways(), long_rows(steps=16))
    run_until(Trainer(corpus(), two_ways(), long_rows(steps=16), tmp_path), stop)
    for _ in Trainer.resume(tmp_path, corpus()).run():
        pass
    assert_same_runs(reference, tmp_path)


@pytest.mark.parametrize("place", range(3))
def test_a_run_left_between_two_validations_validates_again(place: int, tmp_path: Path) -> None:
    whole(tmp_path / "whole", two_ways(), long_rows(steps=9))
    trainer = Trainer(corpus(), two_ways(), long_rows(steps=9), tmp_path / "parts")
    seen = 0
    for progress in trainer.run():
        if progress.doing == "validating" and progress.step == 8:
            if seen == place:
                break
            seen += 1
    assert trainer.counters.logged_step < 8
    trainer.save()
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_longer_budget_in_two_ways_goes_on_as_if_asked_for_at_once(tmp_path: Path) -> None:
    whole(tmp_path / "whole", two_ways(), long_rows(schedule="constant", steps=16))
    whole(tmp_path / "parts", two_ways(), long_rows(schedule="constant", steps=10))
    for _ in Trainer.resume(tmp_path / "parts", corpus(), changes={"steps": 16}).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_run_left_inside_a_validation_validates_again(tmp_path: Path) -> None:
    whole(tmp_path / "whole", model(), config())
    trainer = Trainer(corpus(), model(), config(), tmp_path / "parts")
    for progress in trainer.run():
        if progress.doing == "validating" and progress.step == 8:
            break
    trainer.save()
    assert trainer.counters.logged_step < 8
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_run_left_inside_its_end_ends_again(tmp_path: Path) -> None:
    whole(tmp_path / "whole", model(), config(steps=10))
    trainer = Trainer(corpus(), model(), config(steps=10), tmp_path / "parts")
    for progress in trainer.run():
        if progress.doing == "finishing":
            break
    trainer.save()
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("end", [6, 8, 10, 11])
def test_a_longer_budget_goes_on_as_if_it_had_been_asked_for_at_once(end: int, tmp_path: Path) -> None:
    """Under a constant schedule. The evaluation made because the first budget ended leaves no trace."""
    steady = config(schedule="constant", steps=24)
    whole(tmp_path / "whole", model(), steady)
    whole(tmp_path / "parts", model(), config(schedule="constant", steps=end))
    assert "final" in metrics(tmp_path / "parts")[-1]
    for _ in Trainer.resume(tmp_path / "parts", corpus(), changes={"steps": 24}).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_lines_that_a_killed_run_wrote_after_its_save_are_cut(tmp_path: Path) -> None:
    whole(tmp_path / "whole", model(), config())
    trainer = Trainer(corpus(), model(), config(), tmp_path / "parts")
    for progress in trainer.run():
        if progress.step == 6:
            trainer.save()
        if progress.step == 14:
            break  # killed: nothing saved since step 6
    with (tmp_path / "parts/metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 15, "tr')
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def without(state: RunState, what: str) -> RunState:
    """The state with one component lost, as trackers of other toolkits tell of it."""
    arrays, progress = dict(state.arrays), dict(state.progress)
    for name, array in state.arrays.items():
        if name.startswith(what + "."):
            arrays[name] = 0 * array
    if what.startswith("since_n") or what.startswith("since_c"):
        sums, _, loss = what.partition(".")
        progress[sums] = {**progress[sums], loss: type(progress[sums][loss])()}
    elif what in progress and what != "hidden":
        progress[what] = {"applied": 1, "best_loss": 9.0, "evaluations_since_best": 49}.get(
            what, type(progress[what])()
        )
    lost = progress != state.progress or any(arrays[name].any() != state.arrays[name].any() for name in arrays)
    assert lost, f"there is no {what} to leave out"
    assert arrays.keys() == state.arrays.keys()
    return RunState(arrays, progress, state.settings)


CLOCKS_AND_DERIVED = COUNTER_CLOCKS - {"metrics_bytes"} | {
    "hidden",
    "complete",
    "bad_steps",
    "grad_norm",
    "lr",
    "network",  # `test_members.py` leaves them out, of a run of several
    "network_step",
}
COMPONENTS = ["weights", "first", "second", "best", "hidden"]
COMPONENTS += [field.name for field in fields(Counters) if field.name not in CLOCKS_AND_DERIVED]
SUMS = [field for field in COMPONENTS if field in ("since_nats", "since_characters")]
COMPONENTS = [field for field in COMPONENTS if field not in SUMS]
COMPONENTS += [f"{field}.{loss}" for field in SUMS for loss in ("forward", "backward", "cloze")]


# What only a run in two ways counts and carries; the rest of its state is stored as that of any other.
OF_TWO_WAYS = [name for name in COMPONENTS if name.startswith("cloze") or name.endswith((".backward", ".cloze"))]
OF_TWO_WAYS += ["hidden", "hidden_backward"]
OF_TWO_WAYS += [f"{part}.{name}" for part in ("weights", "first", "second") for name in ("backward_layers", "cloze")]


WORSE = "ab" * 300 + "ba" * 10 + "".join("abb"[i * i % 3] for i in range(300))
"""A text on which a run gets worse at last, so that its best model is an earlier one."""


@pytest.fixture(scope="module")
def worse_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool, int | None], Path]:
    """The folder of a run in one way or in two, to its end or left after a step; each run is made once."""

    @cache
    def run(both: bool, stop: int | None) -> Path:
        folder, corpus = tmp_path_factory.mktemp("worse"), Corpus.from_text(WORSE, valid_fraction=0.3)
        train = (long_rows if both else config)(schedule="constant", lr=0.05)
        trainer = Trainer(corpus, (two_ways if both else model)(), train, folder)
        if stop is None:
            list(trainer.run())
        else:
            run_until(trainer, stop)
        return folder

    return run


def last_before_a_line(both: bool, what: str) -> int:
    """The step after which a component is looked for: 12 has just written a line of metrics."""
    if not what.startswith("since"):
        return 12
    if not what.endswith(".cloze"):
        return 13
    corpus = Corpus.from_text(WORSE, valid_fraction=0.3)  # the layer has just learned, a line is still to come
    cloze = Trainer(corpus, two_ways(), long_rows(schedule="constant", lr=0.05)).train_step.cloze
    return next(step for step in range(6, 24) if cloze.due(step - 1) and step % 3 and step % 4)


@pytest.mark.parametrize(
    ("what", "both"),
    [(what, False) for what in COMPONENTS if what == "hidden" or what not in OF_TWO_WAYS]
    + [(what, True) for what in OF_TWO_WAYS],
    ids=lambda value: ("one way", "two ways")[value] if isinstance(value, bool) else value,
)
def test_leaving_out_any_component_is_noticed(
    what: str, both: bool, worse_run: Callable[[bool, int | None], Path], tmp_path: Path
) -> None:
    """If this fails, the exactness tests above prove nothing about that component."""
    whole, stop = worse_run(both, None), last_before_a_line(both, what)
    parts = shutil.copytree(worse_run(both, stop), tmp_path / "parts")
    state = read_run_state(parts)
    assert 0 < state.progress["best_step"] < stop
    assert read_run_state(whole).progress["best_step"] == state.progress["best_step"]
    save_run_state(parts, without(state, what))
    for _ in Trainer.resume(parts, Corpus.from_text(WORSE, valid_fraction=0.3)).run():
        pass
    with pytest.raises(AssertionError):
        assert_same_runs(whole, parts)


@pytest.mark.parametrize(
    "changes",
    [{"batch_size": 5}, {"seq_length": 9}, {"batching": "random"}, {"seed": 3}, {"hidden_size": 9}, {"cell": "gru"},
     {"dropout": 0.5}, {"valid_fraction": 0.2}, {"unit": "byte"}],
)  # fmt: skip
def test_what_would_be_another_run_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    (name,) = changes
    with pytest.raises(SettingError, match=f"^{name} is .* but the run has .*start a new run"):
        Trainer.resume(tmp_path, corpus(), changes=changes)


def test_saying_what_the_run_already_has_is_no_change(tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    trainer = Trainer.resume(tmp_path, corpus(), changes={"batch_size": 3, "cell": "lstm", "steps": 24})
    assert trainer.config == config()


def test_a_new_learning_rate_keeps_the_moments(tmp_path: Path) -> None:
    trainer = Trainer(corpus(), model(), config(), tmp_path)
    run_until(trainer, 6)
    resumed = Trainer.resume(tmp_path, corpus(), changes={"lr": 0.001, "eval_every": 2, "minutes": 1})
    assert resumed.config.lr == 0.001
    assert resumed.config.steps is None
    for old, new in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(trainer.state.optimizer.state[old][key], resumed.state.optimizer.state[new][key])


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    with pytest.raises(SettingError, match="the corpus is not the one"):
        Trainer.resume(tmp_path, Corpus.from_text(TEXT + "!"))


def test_a_changed_file_is_refused_and_a_moved_run_goes_on(tmp_path: Path) -> None:
    source = tmp_path / "text.txt"
    source.write_text(TEXT)
    run_until(Trainer(Corpus.from_files(source), model(), config(), tmp_path / "run"), 2)
    (tmp_path / "run").rename(tmp_path / "moved")
    described = read_run_state(tmp_path / "moved").settings["corpus"]
    trainer = Trainer.resume(tmp_path / "moved", Corpus.from_description(described))
    assert trainer.counters.step == 2
    assert Trainer.resume(tmp_path / "moved").counters.step == 2
    elsewhere = source.rename(tmp_path / "elsewhere.txt")
    run_until(Trainer.resume(tmp_path / "moved", corpus=Corpus.from_files(elsewhere)), 4)
    assert Trainer.resume(tmp_path / "moved").corpus.sources["train"] == [str(elsewhere)]
    elsewhere.rename(source)
    assert Corpus.from_description(described, elsewhere={"train": source}).key == described["key"]
    source.write_text(TEXT.upper())
    with pytest.raises(DataError, match="not the one that this run learned"):
        Corpus.from_description(described, elsewhere={"train": source})
    with pytest.raises(DataError, match="has changed"):
        Corpus.from_description(described)


def test_nothing_to_resume_and_damage_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="nothing to resume"):
        Trainer.resume(tmp_path, corpus())
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    data = bytearray((tmp_path / "state.safetensors").read_bytes())
    data[-5] ^= 1
    (tmp_path / "state.safetensors").write_bytes(bytes(data))
    with pytest.raises(ModelFileError, match="damaged"):
        Trainer.resume(tmp_path, corpus())


@pytest.mark.parametrize("number", [0, 1, 2, 4, True, "3", None])
def test_a_state_of_another_format_is_refused(number: object, tmp_path: Path) -> None:
    state = bare_state(model("gru", 1))
    described = {"kind": "run", "format": number, "progress": state.progress, "settings": state.settings}
    tensor_file.save(tmp_path / FILE_NAME, state.arrays, described)
    expected = (
        f"format {number!r} is not known to this version (it reads 3): another one wrote it, "
        "and a run resumes only with the version that wrote it"
    )
    with pytest.raises(ModelFileError) as caught:
        read_run_state(tmp_path)
    assert str(caught.value).endswith(f": {expected}")


@pytest.mark.parametrize(
    "changes", [{"step": "5"}, {"step": 1.5}, {"best_loss": True}, {"seconds": None}, {"surprise": 1}, {"hidden": 1}]
)
def test_counters_that_are_none_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    state = read_run_state(tmp_path)
    save_run_state(tmp_path, RunState(state.arrays, {**state.progress, **changes}, state.settings))
    with pytest.raises(ModelFileError, match="the state's"):
        Trainer.resume(tmp_path, corpus())


def test_a_run_killed_before_its_first_save_can_be_resumed(tmp_path: Path) -> None:
    whole(tmp_path / "whole", model(), config())
    for progress in Trainer(corpus(), model(), config(), tmp_path / "parts").run():
        if progress.step == 3:
            break  # killed
    resumed = Trainer.resume(tmp_path / "parts", corpus())
    assert resumed.counters.step == 0
    for _ in resumed.run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_resumed_run_keeps_the_best_model_that_its_end_had_found(tmp_path: Path) -> None:
    """A run ended between two validations with its best weights last; going on must not put an older model back."""
    whole(tmp_path, model(), config(steps=11, schedule="constant"))
    assert read_model(tmp_path).training["step"] == 11
    before = (tmp_path / "model.safetensors").read_bytes()
    resumed = Trainer.resume(tmp_path, corpus(), changes={"steps": 24})
    resumed.save()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_asking_to_resume_what_is_complete_touches_nothing(tmp_path: Path) -> None:
    whole(tmp_path, model(), config(steps=10))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    trainer = Trainer.resume(tmp_path, corpus())
    assert trainer.finished
    assert trainer.counters.complete
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_another_interval_validates_on_the_same_part(tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(eval_every=4), tmp_path / "parts"), 8)
    resumed = Trainer.resume(tmp_path / "parts", corpus(), changes={"eval_every": 3})
    found = [progress.valid_loss for progress in resumed.run() if progress.step == 12 and progress.doing == "training"]
    whole(tmp_path / "whole", model(), config(eval_every=12, log_every=3))
    expected = next(line["valid_loss"] for line in metrics(tmp_path / "whole") if line["step"] == 12)
    assert found == [expected]


def test_a_state_with_settings_of_another_version_is_refused(tmp_path: Path) -> None:
    run_until(Trainer(corpus(), model(), config(), tmp_path), 2)
    state = read_run_state(tmp_path)
    settings = {**state.settings, "training": {**state.settings["training"], "surprise": 1}}
    save_run_state(tmp_path, RunState(state.arrays, state.progress, settings))
    with pytest.raises(ModelFileError, match="none of this version's: there is no setting 'surprise'"):
        Trainer.resume(tmp_path, corpus())


def test_bf16_resumes_exactly_too(tmp_path: Path) -> None:
    whole(tmp_path / "whole", model(), config(steps=8, precision="bf16"))
    run_until(Trainer(corpus(), model(), config(steps=8, precision="bf16"), tmp_path / "parts"), 5)
    for _ in Trainer.resume(tmp_path / "parts", corpus()).run():
        pass
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
