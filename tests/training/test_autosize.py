"""Sizes that choose themselves: what is given stays, more time or text makes no smaller model, reasons are told."""

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chargen import Corpus, ModelConfig, TrainConfig, kernels
from chargen.cli import report
from chargen.errors import SettingError
from chargen.kernels import cpu_features
from chargen.model import device
from chargen.model.config import parameter_shapes
from chargen.storage.model_file import read_model
from chargen.training import autosize
from chargen.training.autosize import (
    IDS_PER_WEIGHT,
    MAX_EPOCHS,
    MOST_MEMBERS,
    PRESETS,
    SIZES,
    STEEPNESS,
    Speed,
    choose_dropout,
    choose_sizes,
    choose_weight_decay,
    count_weights,
    fit_minibatch,
    fit_sizes,
    max_weights,
    peak_lr,
    time_reference,
)
from chargen.training.plan import RunPlan
from chargen.training.trainer import Trainer
from tests.groups import run_together

SECONDS = 8e-6
"""For a character, on two cores with matrix cpu_features."""


def chosen(
    text=1_000_000, minutes=3.0, seconds=SECONDS, model=None, vocabulary=65, preset=None, unit="character", cores=1,
    **training,
):  # fmt: skip
    budget = {} if {"steps", "epochs"} & training.keys() else {"minutes": minutes}
    speed = Speed(seconds)
    options = {"unit": unit, "preset": preset, "speed": speed, "cores": cores}
    return choose_sizes(text, vocabulary, model or {}, budget | training, **options)


def test_a_small_a_usual_and_a_large_text_each_get_something_sensible():
    tiny, usual, huge = chosen(1_800), chosen(), chosen(90_000_000)
    assert tiny.model.hidden_size == SIZES[0]
    assert tiny.training.batch_size * tiny.training.seq_length * 4 <= 1_800
    assert tiny.model.dropout == 0.3
    assert 256 <= usual.model.hidden_size <= 640
    assert 0.05 <= usual.model.dropout <= 0.2
    assert (usual.training.batch_size, usual.training.seq_length) == (32, 128)
    assert huge.model.hidden_size == usual.model.hidden_size, "time decides"
    assert huge.model.dropout == 0
    assert huge.training.weight_decay < usual.training.weight_decay < tiny.training.weight_decay <= 1


@settings(max_examples=100)
@given(
    st.integers(100, 10**9),
    st.integers(2, 100_000),
    st.floats(0.1, 10_000),
    st.floats(1e-7, 1e-3),
    st.sampled_from(["lstm", "gru"]),
    st.integers(1, 4),
)
def test_more_time_text_or_speed_never_makes_a_smaller_model(text, vocabulary, minutes, seconds, cell, layers):
    model = {"cell": cell, "num_layers": layers}
    given_ = {"text": text, "vocabulary": vocabulary, "minutes": minutes, "seconds": seconds, "model": model}
    base = chosen(**given_).model
    assert base.hidden_size in SIZES
    assert (base.cell, base.num_layers) == (cell, layers)
    assert 0 <= base.dropout <= 0.3
    for more in ({"text": 3 * text}, {"minutes": 3 * minutes}, {"seconds": seconds / 3}):
        assert chosen(**given_ | more).model.hidden_size >= base.hidden_size


@pytest.mark.parametrize("budget", [{"steps": 1000}, {"epochs": 9.5}])
def test_steps_and_epochs_need_no_clock(budget):
    found = chosen(seconds=math.nan, **budget)
    trained = 1000 * 32 * 128 if "steps" in budget else 9_500_000
    weights = count_weights(found.model)
    assert trained >= IDS_PER_WEIGHT * weights
    assert weights <= max_weights(1_000_000)
    larger = ModelConfig(hidden_size=SIZES[SIZES.index(found.model.hidden_size) + 1])
    assert trained < IDS_PER_WEIGHT * count_weights(larger)
    assert found.training.minutes is None


def test_what_is_given_stays():
    model = {"cell": "lstm", "num_layers": 3, "hidden_size": 100, "dropout": 0.0, "embedding_size": 10}
    training = {"batch_size": 7, "seq_length": 9, "lr": 0.1, "minutes": 2.0, "weight_decay": 0.2}
    found = choose_sizes(10_000, 50, model, training)
    assert found.model == ModelConfig(**model)
    assert found.training == TrainConfig(**training)
    assert found.reasons == ()
    assert chosen(2_000, batch_size=64).training.batch_size == 64
    assert chosen(lr=0.5).training.lr == 0.5
    assert chosen(weight_decay=0.0).training.weight_decay == 0
    assert chosen(model={"dropout": 0.45}).model.dropout == 0.45


def test_a_text_is_not_read_so_often_that_it_is_learned_by_heart():
    hour, minutes = chosen(minutes=60, members=1), chosen(minutes=3)
    assert (hour.training.epochs, hour.training.minutes) == (MAX_EPOCHS, 60)
    assert (minutes.training.epochs, minutes.training.minutes) == (None, 3)
    told = hour.reasons[1]
    assert f"the text will be read {MAX_EPOCHS}.0 times, some " in told
    assert "of 60 minutes: more would only teach it by heart" in told
    days = chosen(minutes=6000, teachers=0)
    assert days.model == hour.model, "what a longer budget would not use changes no network"
    assert days.training.weight_decay == hour.training.weight_decay
    assert (days.training.members, days.training.epochs) == (MOST_MEMBERS, MOST_MEMBERS * MAX_EPOCHS)
    assert "the text will be read 40.0 times by each: more" in days.reasons[2]
    some = re.search(r"some ([.\d]+) of", told)
    assert some
    assert chosen(minutes=0.9 * float(some[1])).training.epochs is None
    assert chosen(minutes=1.1 * float(some[1]), members=1).training.epochs == MAX_EPOCHS


@pytest.mark.parametrize("text", [2_000, 20_000, 100_000])
def test_a_small_text_is_read_more_often_since_that_makes_few_steps(text):
    found = chosen(text, minutes=60, members=1).training
    assert found.epochs is not None
    steps = found.epochs * text / (found.batch_size * found.seq_length)
    assert 1_500 <= steps < (1_600 if found.epochs > MAX_EPOCHS else 2 * 1_500)


@pytest.mark.parametrize("vocabulary", [2, 65, 150, 500, 1_000, 3_041, 8_753])
@pytest.mark.parametrize("text", [50_000, 300_000, 10**6, 10**8])
@pytest.mark.parametrize(
    "budget", [{"minutes": 1.0}, {"minutes": 10.0, "members": 1}, {"epochs": 0.5}, {"epochs": 30.0}]
)
def test_windows_are_as_long_as_a_budget_of_enough_steps_allows(vocabulary, text, budget):
    found = choose_sizes(text, vocabulary, {}, budget, speed=Speed(SECONDS))
    wanted = min(3_000, max(1_500, 3 * vocabulary))
    epochs = autosize.reachable_ids(found.model, TrainConfig(**budget), text, vocabulary, Speed(SECONDS)) / text
    ids = text * (min(epochs, MAX_EPOCHS) if "minutes" in budget else epochs)
    rows, length = found.training.batch_size, found.training.seq_length
    assert (rows, length) == (32, length)
    assert length in (32, 64, 128)
    assert length == 128 or ids / (rows * 2 * length) < wanted
    assert length == 32 or ids / (rows * length) >= wanted


def test_a_japanese_novel_in_three_minutes_gets_short_windows():
    """328,721 characters, 3,041 different, on a machine that makes 718 steps of 32 x 128 in that time."""
    seconds = 180 * autosize.TRAINING_SHARE / (718 * 32 * 128)
    found = choose_sizes(295_849, 3_041, {"hidden_size": 256}, {"minutes": 3.0}, speed=Speed(seconds))
    assert (found.training.batch_size, found.training.seq_length) == (32, 32)
    assert (
        choose_sizes(10**6, 65, {"hidden_size": 256}, {"minutes": 3}, speed=Speed(seconds / 3)).training.seq_length
        == 128
    )


@pytest.mark.parametrize("given_", [{"seq_length": 128}, {"batch_size": 32}, {"steps": 100}])
def test_windows_that_are_given_and_steps_that_are_given_stay(given_):
    found = choose_sizes(60_000, 3_000, {}, {"epochs": 1.0} | given_ if "steps" not in given_ else given_)
    assert found.training.seq_length == 128


def test_a_budget_that_was_counted_is_not_cut():
    for budget in ({"steps": 10**6}, {"epochs": 500.0}):
        found = chosen(minutes=60, seconds=math.nan, **budget)
        assert found.training.minutes is None
        assert {name: getattr(found.training, name) for name in budget} == budget
        both = choose_sizes(10**6, 65, {}, budget | {"minutes": 3.0}, speed=Speed(SECONDS))
        assert {name: getattr(both.training, name) for name in budget} == budget
        assert both.model == chosen(minutes=3).model, "the clock ends it first"
    fewer = choose_sizes(10**6, 65, {}, {"steps": 100, "minutes": 3.0}, speed=Speed(SECONDS))
    assert fewer.model == chosen(steps=100, seconds=math.nan).model, "the count ends it first"
    untimed = chosen(model={"hidden_size": 512, "dropout": 0.0}, weight_decay=0.0, minutes=1e6, seconds=math.nan)
    assert untimed.training.epochs is None


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_size_and_the_rest_is_chosen(preset):
    found = chosen(preset=preset)
    assert found.model.hidden_size == PRESETS[preset]
    assert found.training.lr == peak_lr(PRESETS[preset])
    assert f"preset {preset}" in found.reasons[0]


def test_three_lines_say_what_and_why():
    size, drop, batch = chosen().reasons
    assert size.startswith(f"{chosen().model.hidden_size} hidden units: the largest that trains")
    told = f"dropout {chosen().model.dropout:g}, weight decay {chosen().training.weight_decay:g}: the text will be read"
    assert told in drop
    assert chosen(model={"dropout": 0.1}).reasons[1].startswith("weight decay")
    assert "32 rows of 128 characters at a peak rate of" in batch
    assert "the most that is good for 30,000 characters, " in chosen(30_000, minutes=60).reasons[0]


@given(
    st.integers(1_000, 10**7), st.floats(0.1, 100), st.sampled_from([{}, {"lr": 1e-3}, {"lr": 1e-3, "batch_size": 8}])
)
def test_the_last_line_says_how_many_steps_there_will_be(text, minutes, given_training):
    found = chosen(text, minutes=minutes, **given_training)
    parts = found.training.parts
    told = re.search(r"; some ([\d,]+) steps$", found.reasons[-1])
    assert not any(" steps" in reason for reason in found.reasons[:-1])
    rows = found.training.batch_size * found.training.seq_length
    if found.training.epochs is None:
        slower = (count_weights(found.model, 65) / count_weights(autosize.REFERENCE, 65)) ** STEEPNESS["bf16"]
        steps = 60 * minutes * autosize.TRAINING_SHARE / (SECONDS * slower) / rows
        if teachers := found.training.teachers:  # who take time to write
            steps *= (teachers + (sum(parts) - teachers) / (1 + autosize.WRITING_TIME * teachers)) / sum(parts)
    else:
        steps = found.training.epochs * text / rows
    assert int(told[1].replace(",", "")) == pytest.approx(steps, rel=0.06, abs=1)


def test_steps_that_are_given_are_exact_and_no_speed_gives_no_steps():
    assert choose_sizes(10**6, 65, {}, {"steps": 1_234}).reasons[-1].endswith("; 1,234 steps")
    assert choose_sizes(10**6, 65, {}, {"steps": 1}).reasons[-1].endswith("; 1 step")
    assert choose_sizes(4_096_000, 65, {}, {"epochs": 2.5}).reasons[-1].endswith("; some 2,500 steps")
    untimed = choose_sizes(10**6, 65, {"hidden_size": 64, "dropout": 0.0}, {"minutes": 3.0, "weight_decay": 0.0})
    assert not any("steps" in reason for reason in untimed.reasons)


def test_bytes_are_called_bytes():
    told = [*chosen(unit="byte").reasons, *chosen(30_000, minutes=60, unit="byte", vocabulary=2_000).reasons]
    assert "32 rows of 128 bytes" in told[2]
    assert "bytes for each of its" in told[0]
    assert " recurrent weights; tied weights: 2,000 different bytes" in told[3]
    assert not any("character" in line for line in told)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_work_is_what_a_character_is_multiplied_by(cell, layers, bidirectional):
    config = ModelConfig(cell, layers, 24, 10, bidirectional=bidirectional)
    shapes = parameter_shapes(config, 50)
    recurrent = sum(math.prod(shape) for name, shape in shapes.items() if "_layers." in name and len(shape) == 2)
    assert count_weights(config) == recurrent
    assert count_weights(config, 50) == recurrent + math.prod(shapes["output.weight"])


def test_dropout_rises_with_pressure_and_stays_small():
    values = [choose_dropout(2.0**power) for power in range(-5, 20)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0, 0.3)
    assert choose_dropout(0) == 0


def test_weight_decay_rises_with_pressure_within_its_bounds():
    values = [choose_weight_decay(2.0**power) for power in range(-5, 20)]
    assert values == sorted(values)
    assert (values[0], values[-1]) == (0.3, 1)
    assert choose_weight_decay(0) == 0.3


def test_the_rate_falls_with_the_size():
    rates = [peak_lr(size) for size in SIZES]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], peak_lr(384), peak_lr(1536)) == (4e-3, 4e-3, 2e-3)


@given(st.integers(0, 10**7))
def test_a_text_has_four_windows_for_each_row_where_it_can(text):
    rows, length = fit_minibatch(text, 32, 128)
    assert 4 <= rows <= 32
    assert 16 <= length <= 128
    assert text >= 4 * rows * length or (rows, length) == (4, 16)
    if text >= 4 * 32 * 128:
        assert (rows, length) == (32, 128)


@pytest.mark.parametrize("matrix", [False, True])
@pytest.mark.parametrize(("precision", "in_vectors"), [("fp32", "fp32"), ("bf16", "bf16 in vectors")])
def test_the_reference_is_timed_on_the_given_device_and_precision(precision, in_vectors, matrix, monkeypatch):
    monkeypatch.setattr(kernels, "fast_bf16", lambda: True)
    monkeypatch.setattr(cpu_features, "amx", lambda: matrix)
    found = time_reference(30, {"precision": precision, "device": "cpu", "lr": 1.0}, seconds=0.01)
    assert found.seconds > 0
    assert found.steepness == STEEPNESS[precision if matrix else in_vectors]


def test_a_pause_while_the_reference_is_timed_does_not_count(monkeypatch):
    """Steps of 0.1 s, every other one interrupted for 0.3 s."""
    taken = itertools.cycle([0.1, 0.4])
    clock = [0.0]

    def run(trainer):
        while True:
            clock[0] += next(taken)
            yield

    monkeypatch.setattr(Trainer, "run", run)
    monkeypatch.setattr(autosize.time, "perf_counter", lambda: clock[0])
    found = time_reference(30, {"precision": "fp32", "device": "cpu"}, seconds=4)
    assert found.seconds * 32 * 128 == pytest.approx(0.1)


def test_timing_the_reference_takes_little_of_the_time_on_a_slow_machine(monkeypatch):
    """Steps of 3 s: once warm, one is enough; of 0.9 s, three."""
    for step, enough in ((3.0, 1), (0.9, 3)):
        clock = [0.0]

        def run(trainer, clock=clock, step=step):
            while True:
                clock[0] += step
                yield

        monkeypatch.setattr(Trainer, "run", run)
        monkeypatch.setattr(autosize.time, "perf_counter", lambda clock=clock: clock[0])
        found = time_reference(30, {"precision": "fp32", "device": "cpu"})
        assert found.seconds * 32 * 128 == pytest.approx(step)
        assert clock[0] == pytest.approx((2 + enough) * step)


def test_the_steeper_the_smaller():
    sizes = [
        choose_sizes(10**7, 65, {}, {"minutes": 60.0}, speed=Speed(4e-5, steepness)).model.hidden_size
        for steepness in (0.75, 0.87, 1.2)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


# Rows for many cores.


BUDGETS = st.one_of(
    st.builds(lambda minutes: {"minutes": minutes}, st.floats(0.1, 1_000)),
    st.builds(lambda epochs: {"epochs": epochs}, st.floats(0.1, 10_000)),
    st.builds(lambda steps: {"steps": steps}, st.integers(1, 100_000)),
)


@given(st.integers(100, 10**8), st.sampled_from([65, 700, 3_041]), BUDGETS, st.integers(1, 7))
def test_few_cores_change_nothing(text, vocabulary, budget, cores):
    sizes = [choose_sizes(text, vocabulary, {}, budget, speed=Speed(SECONDS), cores=number) for number in (1, cores)]
    assert sizes[0] == sizes[1]
    assert sizes[1].training.batch_size == fit_minibatch(text, 32, 128)[0]


@given(st.integers(100, 10**8), st.sampled_from([65, 700, 3_041]), BUDGETS, st.integers(1, 6), st.floats(1e-8, 1e-5))
@example(100_000, 65, {"epochs": 5_000.0}, 5, 1e-6)
def test_many_cores_get_rows_where_text_and_budget_have_enough_for_them(text, vocabulary, budget, doublings, seconds):
    speed, rows = Speed(seconds), []
    for cores in (4, 4 * 2**doublings, 6 * 2**doublings):
        training = choose_sizes(text, vocabulary, {}, budget, speed=speed, cores=cores).training
        rows.append(training.batch_size)
        if training.batch_size <= 32:
            continue
        assert training.batch_size in (64, 128, 256, 512, 1024, 2048)
        assert 8 * cores >= training.batch_size
        assert training.seq_length in (32, 64, 128)
        ids = training.batch_size * training.seq_length
        assert text >= 4 * ids
        model = choose_sizes(text, vocabulary, {}, budget, speed=speed, cores=cores).model
        trained = autosize.reachable_ids(model, training, text, vocabulary, speed)
        assert trained / ids >= 0.999 * min(3_000, max(1_500, 3 * vocabulary)), "enough steps"
    assert rows == sorted(rows), "never fewer for more cores"
    assert ("steps" not in budget) or set(rows) == {rows[0]}


def test_sixteen_cores_share_128_rows_and_windows_take_what_is_left():
    sizes = [chosen(10**8, seconds=SECONDS / 8, minutes=minutes, cores=16) for minutes in (0.1, 0.5, 2.0, 5.0)]
    minibatches = [(size.training.batch_size, size.training.seq_length) for size in sizes]
    assert minibatches == [(64, 32), (128, 32), (128, 64), (128, 128)]
    reason = r"128 rows of 64 characters at a peak rate of [\d.]+: 16 threads, \d+ hidden units, "
    assert re.match(reason, sizes[2].reasons[2])
    rates = [size.training.lr / peak_lr(size.model.hidden_size) for size in sizes]
    assert rates == pytest.approx([1, 1, 2**0.5, 2], rel=0.03)
    assert "thread" not in chosen().reasons[2]


def test_cores_that_would_only_end_a_run_sooner_get_no_rows():
    """40 readings of a million characters are all that is useful."""
    rows = [chosen(minutes=minutes, seconds=SECONDS / 8, cores=32).training.batch_size for minutes in (3, 30, 90, 900)]
    assert rows[0] > rows[-1] == 32
    assert rows == sorted(rows, reverse=True)


@pytest.mark.parametrize("shape", [{"batch_size": 32}, {"seq_length": 128}, {"batch_size": 512, "seq_length": 16}])
def test_a_minibatch_that_is_given_and_one_of_unknown_speed_know_no_cores(shape):
    usual = chosen(10**8, cores=1, **shape)
    assert chosen(10**8, cores=64, **shape) == usual
    assert usual.training.lr == peak_lr(usual.model.hidden_size)
    untimed = chosen(10**8, cores=64, seconds=math.nan, model={"hidden_size": 64, "dropout": 0.0}, weight_decay=0.0)
    assert (untimed.training.batch_size, untimed.training.seq_length) == (32, 128)


def test_the_rate_rises_with_what_a_step_learns_from():
    rates = [peak_lr(512, ids) for ids in (0, 1_024, 4_096, 8_192, 16_384, 10**6)]
    assert rates == sorted(rates)
    assert rates[0] == rates[2] == peak_lr(512)
    assert rates[3] == pytest.approx(rates[0] * 2**0.5, rel=0.02)
    assert rates[-1] == pytest.approx(rates[0] * autosize.MOST_RISE, rel=0.02)


@pytest.fixture
def timed(monkeypatch):
    """What references are timed with; sixteen threads take 1 µs for a character."""
    settings: list[dict] = []
    monkeypatch.setattr(autosize, "threads", lambda: 16)
    monkeypatch.setattr(autosize, "time_reference", lambda size, training: settings.append(training) or Speed(1e-6))
    return settings


LONG = Corpus.from_text("abcdefghij" * 100_000, valid_fraction=0.0)


def test_the_reference_is_timed_with_the_rows_that_are_chosen(timed):
    for minutes, count in ((0.5, 2), (1.8, 1)):
        timed.clear()
        training = fit_sizes(LONG, {}, {"minutes": minutes, "device": "cpu"}).training
        minibatch = {"batch_size": training.batch_size, "seq_length": training.seq_length}
        assert timed[-1].items() >= minibatch.items()
        assert len(timed) == count
        assert timed[0]["batch_size"] == 128
        assert training.batch_size > 32
    timed.clear()
    everything = {"minutes": 0.5, "device": "cpu", "weight_decay": 0.1}
    assert fit_sizes(LONG, {"hidden_size": 256, "dropout": 0.0}, everything).training.batch_size == 128
    assert timed, "to know whether there are steps enough"
    timed.clear()
    fit_sizes(LONG, {"hidden_size": 256, "dropout": 0.0}, everything | {"batch_size": 64})
    assert not timed


def test_counted_steps_have_the_usual_rows_on_any_number_of_cores(timed):
    budget = {"minutes": 1.0, "steps": 5_000, "device": "cpu"}
    assert fit_sizes(LONG, {}, budget).training.batch_size == 32
    assert [settings["batch_size"] for settings in timed] == [32]


def test_cores_of_several_processes_are_timed_by_the_share_of_this_one(timed):
    """Four processes of sixteen threads each are four times as fast, and share 512 rows."""
    alone = fit_sizes(LONG, {}, {"minutes": 1.6, "device": "cpu"})
    timed.clear()
    shared = fit_sizes(LONG, {}, {"minutes": 0.4, "device": "cpu"}, processes=4)
    assert timed[0]["batch_size"] == 128
    assert shared.model.hidden_size == alone.model.hidden_size, "as many characters in a quarter of the time"
    assert shared.training.batch_size == 512
    plan = RunPlan("text.txt", {"minutes": 0.4, "device": "cpu"})
    assert run_together(4, lambda group: plan.choose_sizes(LONG, group)) == [shared] * 4


def test_threads_beside_a_gpu_need_no_rows(timed, monkeypatch):
    monkeypatch.setattr(device, "pick_device", lambda name: torch.device("cuda"))
    assert fit_sizes(LONG, {}, {"minutes": 1.6}).training.batch_size == 32


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(SettingError, match="tpu"):
        time_reference(30, {"device": "tpu"}, seconds=0.01)


# The command.


@pytest.fixture
def run(run, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog on the log\n" * 50)
    return lambda *arguments: run(*arguments, "--precision", "fp32", "--preview", 0)


def test_the_command_says_what_it_chose_and_warns_of_a_small_text(run, monkeypatch):
    timed = []
    monkeypatch.setattr(autosize, "time_reference", lambda *given: timed.append(given) or Speed(1e-3))
    code, _, told = run("train", "text.txt", "--minutes", "0.02", "--device", "cpu")
    assert code == 0
    assert "warning: 2,070 characters to learn from are few" in told
    assert "chosen   64 hidden units: the largest that trains 3.5 characters" in told
    assert re.search(
        r"^         dropout 0[.\d]*, weight decay [\d.]+: the text will be read [\d.]+ times$", told, re.MULTILINE
    )
    assert "         4 rows of 32 characters at a peak rate of 0.004" in told
    assert [timing[1]["seq_length"] for timing in timed] == [128, 32], "once more, with what was chosen"
    assert [(timing[1]["batch_size"], timing[1]["device"]) for timing in timed] == [(4, "cpu")] * 2
    file = read_model("checkpoints/text")
    assert file.config.hidden_size == 64
    assert file.training["settings"]["batch_size"] == 4


def test_nothing_is_timed_where_no_minutes_are_given_or_all_is(run, monkeypatch):
    def never(*given):
        raise AssertionError("timed")

    monkeypatch.setattr(autosize, "time_reference", never)
    assert run("train", "text.txt", "--steps", 2).code == 0
    told = run("train", "text.txt", "--minutes", "0.01", "--hidden-size", 8, "--dropout", 0.2, "--preset", "small")
    assert told.code == 2
    assert "--preset" in told.err
    assert (
        run("train", "text.txt", "--minutes", "0.01", "--hidden-size", 8, "--dropout", 0.2, "--weight-decay", 0).code
        == 0
    )
    assert run("train", "text.txt", "--steps", 1, "--preset", "small").code == 0
    assert read_model("checkpoints/text-3").config.hidden_size == 128


def test_a_resumed_run_keeps_what_was_chosen(run):
    run("train", "text.txt", "--steps", 2, "--out", "run")
    before = read_model("run")
    assert run("train", "--resume", "run", "--steps", 4).code == 0
    after = read_model("run")
    assert after.config == before.config
    assert after.training["settings"]["lr"] == before.training["settings"]["lr"]


def test_a_run_that_was_cut_says_so_and_can_be_given_more(run, monkeypatch):
    monkeypatch.setattr(autosize, "time_reference", lambda *given: Speed(1e-7))
    size = "--hidden-size", 8, "--seq-length", 8, "--batch-size", 1, "--members", 1
    monkeypatch.setattr(autosize, "MAX_EPOCHS", 2)
    monkeypatch.setattr(autosize, "FEWEST_STEPS", 3)
    monkeypatch.setattr(autosize, "STEPS_FOR_EACH", 0)
    code, _, told = run("train", "text.txt", "--minutes", 60, *size, "--out", "run")
    assert code == 0
    assert "the text will be read 2.0 times, some 0.1 of 60 minutes: more would only teach it by heart" in told
    assert read_model("run").training["epoch"] <= 2.01
    code, _, told = run("train", "--resume", "run")
    assert code == 2
    assert "its budget is used after 2 epochs; give a larger --epochs to go on" in told
    assert run("train", "--resume", "run", "--epochs", 2.1).code == 0
    assert read_model("run").training["settings"]["minutes"] is None


@pytest.mark.parametrize(("text", "words"), [(10**8, "3.3 % of the text will be read"), (10**6, "be read 3.3 times")])
def test_a_text_too_long_for_the_budget_is_read_in_part(text, words):
    found = choose_sizes(text, 65, {"hidden_size": 128}, {"steps": 800}, speed=Speed())
    assert any(words in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(("singles", "told"), [(1200, True), (700, False)])
def test_many_rare_characters_are_told_with_what_would_fold_them(singles, told, run):
    """900 characters that occur often, and others once each."""
    often = "".join(map(chr, range(0x4E00, 0x4E00 + 900))) * 1500
    rare = "".join(map(chr, range(0x7000, 0x7000 + singles)))
    Path("text.txt").write_text(often[: len(often) // 2] + rare + often[len(often) // 2 :], "utf-8")
    said = run("train", "text.txt", "--steps", 1, "--hidden-size", 2, "--seq-length", 8).err
    words = f"note: {singles:,} of these characters make up a thousandth of the text; --min-count "
    assert (words in said) is told


def test_the_rarest_thousandth():
    assert report._count_rare(np.array([1] * 5 + [2, 1000, 8000])) == (6, 1000)
    assert report._count_rare(np.array([500, 500])) == (0, 500)
