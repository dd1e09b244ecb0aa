"""Teachers: networks that write texts, from which and from the text itself another one learns."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from chargen import ModelConfig, TrainConfig, Trainer
from chargen.data.batches import Batch, ConsecutiveBatches
from chargen.errors import SettingError
from chargen.exporting.model_card import write_model_card
from chargen.model.language_model import CharModel
from chargen.model.weights import weights_of
from chargen.rng import Purpose, uniform
from chargen.storage.model_file import read_model
from chargen.training import memory, setup
from chargen.training.autosize import Speed, choose_sizes
from chargen.training.config import TAUGHT_DECAY, TAUGHT_PARTS
from chargen.training.memory import block_size, estimate_memory
from chargen.training.teachers import TaughtBatches, Teachers, Texts, weigh_begins
from chargen.training.train_step import TrainState, TrainStep, adamw
from tests.groups import run_together
from tests.several_networks import corpus, finish, have_same_weights

SHAPE = ModelConfig(num_layers=1, hidden_size=8, dropout=0.2)
CONFIG = TrainConfig(
    steps=15, teachers=2, batch_size=6, seq_length=16, eval_every=3, log_every=2, weight_decay=0.7, precision="fp32"
)
NETWORKS = [CharModel(replace(SHAPE, dropout=0.0), 9, seed) for seed in (1, 2)]
BEGINS = np.array([0.0, 0.25, 0, 0, 0.75, 0, 0, 0, 0])


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    """So that little time is spent on writing what nobody reads."""
    monkeypatch.setattr(memory, "LENGTH", 48)


def make_teachers(networks=NETWORKS, begins=BEGINS, end_id=None, direction="forward"):
    return Teachers(networks, begins, end_id, direction, "fp32", seed=3)


def write(numbers, places):
    texts = Texts(make_teachers(), numbers, places)
    texts.write_until(len(places))
    return texts.ids, texts.probabilities


@torch.no_grad()
def predictions(ids):
    """The mean of what both networks predict behind each id of a text."""
    read = [network(torch.from_numpy(ids)[None])[0] for network in NETWORKS]
    return sum(torch.softmax(logits[0], 1).double().numpy() for logits in read) / 2


# What teachers write


def test_teachers_write_what_they_predict():
    ids, probabilities = write(range(5, 25), range(40, 70))
    assert ids.shape == (20, 31)
    assert probabilities.shape == (20, 30, 9)
    for number, text, targets in zip(range(5, 25), ids, probabilities, strict=True):
        expected = predictions(text[:-1])
        np.testing.assert_allclose(targets, expected, atol=1e-3)
        for place in range(30):
            draw = uniform(3, number, 40 + place, Purpose.TEACH)
            chosen = int(np.searchsorted(expected[place].cumsum(), draw, "right"))
            assert abs(expected[place].cumsum() - draw).min() < 1e-6 or text[place + 1] == chosen


def test_texts_begin_as_often_behind_each_id_as_in_the_corpus():
    ids, _ = write(range(4_000), range(1))
    shares = np.bincount(ids[:, 0], minlength=9) / 4_000
    np.testing.assert_allclose(shares, BEGINS, atol=0.03)


def test_a_text_depends_on_its_number_alone():
    whole, probabilities = write(range(12), range(20))
    part, part_probabilities = write(range(4, 7), range(20))
    np.testing.assert_array_equal(part, whole[4:7])
    np.testing.assert_allclose(part_probabilities, probabilities[4:7], atol=1e-3)
    other, _ = write(range(4, 7), range(20, 40))
    assert (other != part).any()


def test_records_begin_behind_each_other():
    """Behind an end stands the begin symbol of the next record, with labels in their shares; none is a target."""
    text = "".join(json.dumps({"text": f"ab{label}", "label": label}) + "\n" for label in "xxxy" * 50)
    records = corpus(text, records="jsonl", label_field="label")
    end = records.vocabulary.end_id
    begins = weigh_begins(records, "forward")
    assert begins[:end].sum() == 0
    assert begins[end:].sum() == pytest.approx(1)
    assert (begins[end:] > 0).sum() == 2
    shape = replace(SHAPE, begin_symbols=records.vocabulary.begin_symbols, dropout=0.0)
    batches = TaughtBatches(
        None, make_teachers([CharModel(shape, len(records.vocabulary))], begins, end), range(4), 4, 8, 1.0
    )
    read = [batches.batch(step) for step in range(40)]
    inputs, targets, fresh = (
        np.concatenate([getattr(batch, name) for batch in read], 1) for name in ("inputs", "targets", "fresh")
    )
    assert targets.max() == end
    before, begins_anew = targets[:, :-1], fresh[:, 1:]
    behind_ends = inputs[:, 1:][(before == end) & ~begins_anew]
    assert len(behind_ends) > 20
    assert set(behind_ends) == set(np.flatnonzero(begins))
    elsewhere = (before != end) & ~begins_anew
    np.testing.assert_array_equal(inputs[:, 1:][elsewhere], before[elsewhere])


def test_a_text_without_lines_begins_behind_any_character():
    flat = corpus("abcab" * 300)
    np.testing.assert_allclose(weigh_begins(flat, "forward"), flat.counts / flat.counts.sum())
    lines = corpus()
    line_end = lines.vocabulary.encode("\n")[0]
    assert weigh_begins(lines, "forward")[line_end] == 1


# What a network with teachers reads


def taught(rows=range(2), own=range(1)):
    ids = np.arange(400) % 9
    return TaughtBatches(ConsecutiveBatches(ids, 1, 8, rows=own) if own else None, make_teachers(), rows, 2, 8, 9.0)


def test_rows_read_all_that_is_written_once_and_in_order(monkeypatch):
    monkeypatch.setattr(memory, "TEXTS", 6)
    monkeypatch.setattr(memory, "LENGTH", 24)
    batches = taught()
    assert (batches.texts, batches.windows) == (3, 3)
    for block in range(2):
        read = [batches.batch(9 * block + step) for step in range(9)]
        ids, probabilities = write(range(6), range(24 * block, 24 * block + 24))
        for row in range(2):
            inputs = np.concatenate([batch.inputs[1 + row] for batch in read]).reshape(3, 24)
            targets = np.concatenate([batch.targets[1 + row] for batch in read]).reshape(3, 24)
            learned = np.concatenate([batch.taught[row] for batch in read]).reshape(3, 24, 9)
            np.testing.assert_array_equal(inputs, ids[3 * row : 3 * row + 3, :-1])
            np.testing.assert_array_equal(targets, ids[3 * row : 3 * row + 3, 1:])
            np.testing.assert_array_equal(learned, probabilities[3 * row : 3 * row + 3])
        fresh = np.concatenate([batch.fresh[1:] for batch in read], 1)
        assert (np.flatnonzero(fresh[0]) == [0, 24, 48]).all()
        assert (fresh == fresh[0]).all()


def test_the_next_texts_are_written_while_others_are_read(monkeypatch):
    """As much at each step, so that no step takes long."""
    monkeypatch.setattr(memory, "TEXTS", 6)
    monkeypatch.setattr(memory, "LENGTH", 24)
    batches = taught()
    for step in range(20):
        batches.batch(step)
        written = {number: texts.written for number, texts in batches._blocks.items()}
        assert written == {step // 9: 24, step // 9 + 1: 24 * (step % 9 + 1) // 9}


def test_texts_begin_where_their_reader_does():
    late = TaughtBatches(None, make_teachers(), range(2), 2, 8, 9.0, first_step=13)
    assert late.batch(13).fresh[:, 0].all()
    np.testing.assert_array_equal(late.batch(14).inputs, taught(own=None).batch(1).inputs)


def test_the_first_rows_read_the_text():
    plain = ConsecutiveBatches(np.arange(400) % 9, 1, 8)
    for step in (0, 1, 70, 5):
        batch = taught().batch(step)
        assert batch.taught.shape == (2, 8, 9)
        for name in ("inputs", "targets", "fresh"):
            np.testing.assert_array_equal(getattr(batch, name)[:1], getattr(plain.batch(step), name))


def test_a_batch_is_a_function_of_its_step(monkeypatch):
    monkeypatch.setattr(memory, "TEXTS", 4)
    batches, others = taught(), taught()
    read = [batches.batch(step) for step in range(30)]
    for step in (29, 3, 17, 4):
        for name in ("inputs", "targets", "fresh", "taught"):
            np.testing.assert_array_equal(getattr(others.batch(step), name), getattr(read[step], name))


def test_processes_share_the_rows():
    whole = taught().batch(3)
    parts = [taught(range(0), range(1)).batch(3), taught(range(1), None).batch(3), taught(range(1, 2), None).batch(3)]
    assert parts[0].taught is None
    for name in ("inputs", "targets", "fresh"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))
    joined = np.concatenate([parts[1].taught, parts[2].taught])
    np.testing.assert_allclose(joined, whole.taught, atol=1e-3)


@pytest.mark.parametrize(("size", "rows", "length"), [(65, 21, 128), (8_753, 21, 128), (50, 1, 1), (60_000, 600, 256)])
def test_a_block_is_no_larger_than_it_must_be(size, rows, length, monkeypatch):
    monkeypatch.setattr(memory, "LENGTH", 1024)
    texts, windows = block_size(size, rows, length)
    assert texts >= 1
    assert windows >= 1
    assert (texts, windows) == (1, 1) or texts * rows * windows * length * size <= memory.PROBABILITIES
    assert texts == 1 or texts * rows <= memory.TEXTS
    assert windows * length <= max(memory.LENGTH, length)
    config = TrainConfig(batch_size=32, seq_length=128)
    more = estimate_memory(SHAPE, size, replace(config, teachers=2)) - estimate_memory(SHAPE, size, config)
    texts, windows = block_size(size, 32 - config.own_rows, 128)
    assert more > 2 * (32 - config.own_rows) * texts * windows * 128 * size


# What it learns


@pytest.mark.parametrize("own", [0, 1, 3])
def test_the_loss_is_that_of_characters_and_of_probabilities(own):
    """Of the text's rows the characters, of the others what the teachers predict, each place alike."""
    torch.manual_seed(0)
    model, step = CharModel(replace(SHAPE, dropout=0.0), 9, 5), TrainStep(replace(CONFIG, clip_norm=0.0))
    ids = np.random.default_rng(0).integers(0, 9, (own + 2, 8))
    wanted = torch.softmax(3 * torch.randn(2, 7, 9), 2).half().numpy()
    batch = Batch(ids[:, :-1], ids[:, 1:], np.zeros((own + 2, 7), bool), wanted)
    logits = model(torch.from_numpy(batch.inputs))[0]
    nats = -torch.log_softmax(logits, 2)
    hard = nats[:own].gather(2, torch.from_numpy(batch.targets[:own, :, None]))[..., 0]
    soft = (torch.from_numpy(wanted).float() * nats[own:]).sum(2)
    expected = torch.cat([hard, soft]).mean()
    gradient = torch.autograd.grad(expected, [model.output.weight, model.embedding.weight])
    state = TrainState(model, adamw(model, CONFIG))
    minibatches, counts = step.minibatches(state, {"forward": batch}), step.counts({"forward": batch})
    parts, _ = step.gradients(state, minibatches, step.dropout_key(state), counts)
    assert parts["forward"].loss.item() == pytest.approx(expected.item(), abs=1e-5)
    names = [id(weight) for weight in state.weights["forward"]]
    for weight, part in zip((model.output.weight, model.embedding.weight), gradient, strict=True):
        torch.testing.assert_close(parts["forward"].gradients[names.index(id(weight))], part, atol=1e-6, rtol=1e-4)


def test_what_only_its_teachers_know_is_learned():
    """Of a text of one line its teachers, who know another language, are all that tells of that one."""
    language = corpus("ab" * 2_000 + "\n" + "ba" * 30)
    ids = language.vocabulary.encode("aabbaabb" * 100)
    teacher = CharModel(replace(SHAPE, hidden_size=16, dropout=0.0), len(language.vocabulary), 1)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        inputs = torch.from_numpy(np.array(ids[:201])).long()
        functional.cross_entropy(teacher(inputs[None, :-1])[0][0], inputs[1:]).backward()
        optimizer.step()
    config = replace(CONFIG, steps=200, teachers=1, batch_size=6, lr=0.02)
    trainer = Trainer(language, replace(SHAPE, hidden_size=16), config)
    trainer.checkpointer.begin_network(weights_of(teacher))
    trainer.counters.network = 1
    trainer._begin_batches()
    trainer.state = setup.new_state(trainer._settings, trainer.device)
    losses = [
        trainer.train_step(
            trainer.state, {"forward": trainer.batches["forward"].batch(trainer.state.step)}, config.lr
        ).figures[0]
        for _ in range(200)
    ]
    assert losses[-1] < 0.5 * losses[0]
    read = torch.from_numpy(np.array(language.vocabulary.encode("\nabbaabbaab"))).long()[None]
    with torch.no_grad():
        probabilities = torch.softmax(trainer.model(read)[0][0], 1)
    assert probabilities[4:10].gather(1, torch.cat([read[0, 5:], language_next(language)])[:6, None]).mean() > 0.8


def language_next(language):
    return torch.from_numpy(np.array(language.vocabulary.encode("b"))).long()


# A run


@pytest.mark.parametrize("options", [{}, {"unit": "byte"}, {"records": "line"}])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_run_keeps_no_teacher(tmp_path, options, bidirectional):
    trainer = Trainer(corpus(**options), replace(SHAPE, bidirectional=bidirectional), CONFIG, tmp_path / "run")
    decays, dropouts, networks = [], [], []
    for _ in trainer.run():
        networks.append((trainer.counters.step, trainer.counters.network))
        decays.append(trainer.state.optimizer.param_groups[0]["weight_decay"])
        dropouts.append(trainer.model.config.dropout)
    assert TAUGHT_PARTS == 3
    begun = {network: min(step for step, at in networks if at == network) for network in range(3)}
    assert begun == {0: 1, 1: 4, 2: 7}
    assert (set(decays[-4:]), set(dropouts[-4:])) == ({TAUGHT_DECAY}, {0.0})
    assert (decays[0], dropouts[0]) == (0.7, 0.2)
    file = read_model(tmp_path / "run")
    assert len(file.networks) == 1
    assert have_same_weights(file, trainer.best_model)


@pytest.mark.parametrize("stop", [2, 3, 6, 7, 10, 14])
def test_a_run_that_is_stopped_anywhere_goes_on_as_if_it_had_not(tmp_path, stop):
    whole = finish(Trainer(corpus(), SHAPE, CONFIG, tmp_path / "whole"))
    trainer = Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")
    for _ in trainer.run():
        if trainer.counters.step == stop:
            break
    trainer.save()
    resumed = finish(Trainer.resume(tmp_path / "run", corpus()))
    assert have_same_weights(resumed.best_model, whole.best_model)
    assert resumed.summary["valid_loss"] == whole.summary["valid_loss"]


def test_the_file_has_the_teachers_until_there_is_another(tmp_path):
    trainer = Trainer(corpus(), SHAPE, replace(CONFIG, steps=16, members=2), tmp_path / "run")
    saved = {}
    for _ in trainer.run():
        if trainer.counters.step not in saved and not trainer.counters.complete:
            trainer.save()
            saved[trainer.counters.step] = read_model(tmp_path / "run").networks
    sizes = [len(saved[step]) for step in (1, 3, 5, 10, 12, 16)]
    assert sizes == [1, 1, 2, 2, 1, 1]
    assert len(trainer.best_model.networks) == 2
    name = "output.bias"
    np.testing.assert_array_equal(saved[12][0][name], trainer.best_model.networks[0][name])
    assert (saved[5][0][name] != saved[12][0][name]).any()


def test_processes_learn_what_one_does():
    def train(group):
        return finish(Trainer(corpus(), SHAPE, replace(CONFIG, steps=10), group=group)).best_model

    alone = finish(Trainer(corpus(), SHAPE, replace(CONFIG, steps=10))).best_model
    for model in run_together(3, train):
        for name, array in model.arrays.items():
            np.testing.assert_allclose(array, alone.arrays[name], atol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teachers": 60, "members": 5}, "teachers 60 and members 5 are 65 networks: there may be 64"),
        (
            {"batch_size": 1},
            "teachers is 2, but a minibatch of one row has none for what they write: give `batch_size=2`",
        ),
    ],
)
def test_teachers_that_cannot_teach_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        replace(CONFIG, **settings)
    assert choose_sizes(100_000, 60, {}, {"minutes": 30.0, "batch_size": 1}, speed=Speed(2e-5)).training.teachers == 0


def test_a_loss_of_somebodys_own_has_no_teachers():
    with pytest.raises(SettingError, match="loss of your own"):
        Trainer(corpus(), SHAPE, CONFIG, loss=lambda values, output, targets: values.sum())


def test_teachers_do_not_go_with_a_model_to_start_from():
    with pytest.raises(SettingError, match="teachers is 2, but a model to start from makes one network"):
        Trainer(corpus(), None, CONFIG, init=finish(Trainer(corpus(), SHAPE, replace(CONFIG, teachers=0))).best_model)


# What is chosen


def test_a_budget_that_one_network_cannot_use_makes_teachers():
    speed = Speed(2e-5)
    chosen = [choose_sizes(100_000, 60, {}, {"minutes": minutes}, speed=speed) for minutes in (1, 3, 10, 1e3)]
    assert [(sizes.training.teachers, sizes.training.members) for sizes in chosen] == [(0, 1), (1, 1), (2, 1), (2, 5)]
    assert chosen[0].training.networks == 1
    assert chosen[1].model.hidden_size > chosen[0].model.hidden_size
    reasons = " ".join(chosen[2].reasons)
    assert "2 teachers that will write for one that is kept, without dropout" in reasons
    assert "of teachers: the text will be read" in reasons
    for fixed in ({"members": 1}, {"steps": 10**6}, {"epochs": 500.0}):
        assert choose_sizes(100_000, 60, {}, {"minutes": 1e3} | fixed, speed=speed).training.teachers == 0
    several = choose_sizes(100_000, 60, {}, {"minutes": 3, "members": 2, "teachers": 1}, speed=speed)
    assert (several.training.teachers, several.training.members) == (1, 2)
    epochs = choose_sizes(100_000, 60, {}, {"epochs": 80.0, "teachers": 1}, speed=speed)
    assert "read 20.0 times by each" in " ".join(epochs.reasons)


def test_a_finished_model_stays_until_a_longer_run_ends(tmp_path):
    """Not its teachers take its place, when the run goes on and is saved."""
    finished = finish(Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")).best_model
    trainer = Trainer.resume(tmp_path / "run", corpus(), changes={"steps": 30})
    for _ in trainer.run():
        if trainer.counters.step == 18:
            break
    trainer.save()
    assert have_same_weights(read_model(tmp_path / "run"), finished)
    assert not have_same_weights(finish(Trainer.resume(tmp_path / "run", corpus())).best_model, finished)


def test_a_model_has_the_settings_of_the_network_that_is_kept(tmp_path):
    trainer = Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")
    for _ in trainer.run():
        if trainer.counters.step == 9:
            trainer.save()
            teachers = read_model(tmp_path / "run")
    assert (teachers.config.dropout, teachers.training["settings"]["weight_decay"]) == (0.2, 0.7)
    file = read_model(tmp_path / "run")
    assert (file.config.dropout, file.training["settings"]["weight_decay"]) == (0.0, TAUGHT_DECAY)


def test_a_model_tells_of_its_teachers(tmp_path, run):
    """But not a teacher, which a run leaves that is stopped before they have taught."""
    trainer = Trainer(corpus(), SHAPE, CONFIG, tmp_path / "run")
    for _ in trainer.run():
        if trainer.counters.step == 10:
            trainer.save()
            assert trainer.counters.network == 2
            assert read_model(tmp_path / "run").teachers == 0
    file = read_model(tmp_path / "run")
    assert file.teachers == 2
    assert ", with 2 teachers\n" in run("info", tmp_path / "run").out
    assert "It has also learned what 2 teachers wrote" in write_model_card("run", file, "")
    for hostile in (-1, True, "2", 10**30, None, [2]):
        assert replace(file, training={"teachers": hostile}).teachers == 0


def test_each_network_that_is_taught_reads_texts_of_its_own():
    trainer = Trainer(corpus(), SHAPE, replace(CONFIG, steps=16, members=2))
    read = {}
    for _ in trainer.run():
        counters = trainer.counters
        if counters.network >= 2 and counters.network not in read:
            read[counters.network] = trainer.batches["forward"].batch(counters.network_step)
    own = CONFIG.own_rows
    assert (read[2].inputs[own:] != read[3].inputs[own:]).any()
