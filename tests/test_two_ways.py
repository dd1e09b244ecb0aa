"""Two stacks that never mix: what each reads, what each learns from, and the layer that stands between them."""

import copy
import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from chargen import evaluate
from chargen.data.batches import BackwardBatches, RandomBatches, make_batches
from chargen.data.corpus import Corpus
from chargen.data.vocabulary import CODE_POINTS, Vocabulary
from chargen.errors import DataError, SettingError
from chargen.evaluation.loss import evaluate_ids
from chargen.model import loss as loss_module
from chargen.model.config import DIRECTIONS, ModelConfig, parameter_count, parameter_shapes
from chargen.model.dropout import DropoutKey
from chargen.model.language_model import CharModel
from chargen.model.layers import start_fresh
from chargen.rng import Purpose, uniform
from chargen.storage.model_file import build_model, load_model, read_model
from chargen.training.cloze_task import CHARACTERS_SHARE, MARGIN, ROWS, WINDOW, ClozeTask, cloze_loss, even_windows
from chargen.training.config import TrainConfig
from chargen.training.train_step import TrainStep
from chargen.training.trainer import Trainer

V = 7
NOISE = DropoutKey(seed=5, step=9)
KINDS = list(product(("lstm", "gru"), (1, 2, 3)))
every_kind = pytest.mark.parametrize(("cell", "layers"), KINDS)
every_direction = pytest.mark.parametrize("direction", DIRECTIONS)
TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 12
SMALL = ModelConfig(num_layers=2, hidden_size=10, embedding_size=6, dropout=0.2, bidirectional=True)


def new_model(cell="lstm", layers=2, *, seed=0, hidden=6, scale=2.5, **options):
    """A model in two ways whose weights are large enough that every input shows, the cloze layer's last ones too."""
    model = CharModel(ModelConfig(cell, layers, hidden, 5, **{"bidirectional": True, **options}), V, seed)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
        for weight in (model.cloze.output.weight, model.cloze.output.bias):
            weight.copy_(torch.randn(weight.shape, generator=draws))
    return model


def some_ids(rows, length, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, V, (rows, length)))


@torch.inference_mode()
def logits_of(model, ids, direction, masks=None):
    return model(ids, None, masks, direction)[0]


def own_layers(model, direction):
    return model.forward_layers if direction == "forward" else model.backward_layers


def config(**chosen):
    """Wide enough for the cloze layer to learn within a few steps, at some and not at others."""
    usual = {"steps": 12, "batch_size": 4, "seq_length": 32, "lr": 0.01, "warmup": 2, "precision": "fp32",
             "eval_every": 5, "log_every": 4}  # fmt: skip
    return TrainConfig(**{**usual, **chosen})


def corpus(text=TEXT, **chosen):
    return Corpus.from_text(text, **chosen)


def places(length):
    """A text that is its own positions: every character occurs once, and its id is where it stands."""
    found = Corpus.from_text("".join(map(chr, range(0x4E00, 0x4E00 + length))), valid_fraction=0)
    assert found.train.tolist() == list(range(length))
    return found


def finish(trainer):
    for _ in trainer.run():
        pass
    return trainer


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


# The model


@settings(max_examples=40)
@given(st.sampled_from(["lstm", "gru"]), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 20))
def test_the_shapes_known_without_torch_are_those_of_the_model(cell, layers, hidden, embedding, size):
    shape = ModelConfig(cell, layers, hidden, embedding, bidirectional=True)
    real = CharModel(shape, size).state_dict()
    assert list(parameter_shapes(shape, size).items()) == [(name, tuple(w.shape)) for name, w in real.items()]
    assert parameter_count(shape, size) == sum(weight.numel() for weight in real.values())


@pytest.mark.parametrize("hidden", [3, 128, 200])
@every_kind
def test_a_second_stack_and_the_cloze_layer_are_all_that_is_added(cell, layers, hidden):
    one, two = (ModelConfig(cell, layers, hidden, 4, bidirectional=both) for both in (False, True))
    stack = sum(weight.numel() for weight in CharModel(one, V).forward_layers.parameters())
    units = min(hidden, 128)
    cloze = 2 * units * hidden + units + V * units + V
    assert parameter_count(two, V) - parameter_count(one, V) == stack + cloze
    names = list(parameter_shapes(two, V))
    assert names[: len(parameter_shapes(one, V))] == list(parameter_shapes(one, V))


@every_kind
def test_what_both_kinds_of_model_have_starts_with_the_same_weights(cell, layers):
    one, two = (CharModel(ModelConfig(cell, layers, 6, 5, bidirectional=both), V, seed=3) for both in (False, True))
    started = two.state_dict()
    assert all(torch.equal(started[name], weight) for name, weight in one.state_dict().items())
    for ahead, behind in zip(two.forward_layers.parameters(), two.backward_layers.parameters(), strict=True):
        assert ahead.shape == behind.shape
        assert ahead.ndim == 1 or not torch.equal(ahead, behind)


def test_both_stacks_of_an_lstm_start_with_open_forget_gates():
    for layer in CharModel(ModelConfig("lstm", 2, 6, 5, bidirectional=True), V).backward_layers:
        assert (layer.bias_ih_l0[6:12] == 1).all()
        assert (layer.bias_hh_l0[6:12] == 0).all()


@pytest.mark.parametrize("masks", [None, NOISE])
@every_direction
@every_kind
def test_a_direction_does_not_depend_on_the_weights_of_the_other_or_of_cloze(cell, layers, direction, masks):
    model, ids = new_model(cell, layers, dropout=0.3), some_ids(2, 9)
    other = DIRECTIONS[direction == "forward"]
    before = logits_of(model, ids, direction, masks)
    with torch.no_grad():
        for weight in (*own_layers(model, other).parameters(), *model.cloze.parameters()):
            weight += 1
    assert torch.equal(logits_of(model, ids, direction, masks), before)
    for name, weight in model.named_parameters():
        if name.startswith(("embedding.", "output.", f"{direction}_layers.")) and weight.ndim > 1:
            kept = weight.detach().clone()
            with torch.no_grad():
                weight *= -2
                assert not torch.equal(logits_of(model, ids, direction, masks), before), name
                weight.copy_(kept)


@every_kind
def test_backward_is_what_a_one_way_model_with_the_same_weights_makes_of_the_ids_it_is_given(cell, layers):
    model, ids = new_model(cell, layers), some_ids(2, 9)
    one_way = CharModel(ModelConfig(cell, layers, 6, 5), V)
    started = model.state_dict()
    one_way.load_state_dict(
        {name: started[name.replace("forward_layers", "backward_layers")] for name in one_way.state_dict()}
    )
    assert torch.equal(logits_of(model, ids, "backward"), logits_of(one_way, ids, "forward"))
    assert not torch.equal(logits_of(model, ids, "backward"), logits_of(model, ids, "forward"))


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.sampled_from(DIRECTIONS), st.integers(1, 3), st.integers(1, 12), st.data())
def test_whole_and_in_pieces_with_carried_state_agree(kind, direction, rows, length, data):
    model, ids = new_model(*kind), some_ids(rows, length)
    with torch.inference_mode():
        whole, end = model(ids, direction=direction)
        pieces, state, at = [], None, 0
        while at < length:
            size = data.draw(st.integers(1, length - at))
            logits, state = model(ids[:, at : at + size], state, direction=direction)
            pieces.append(logits)
            at += size
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-6
    assert all((one - other).abs().max() < 1e-6 for one, other in zip(state, end, strict=True))


@pytest.mark.parametrize("direction", ["sideways", "", "Forward", None])
def test_a_direction_that_is_none_is_named(direction):
    for both in (True, False):
        model = CharModel(ModelConfig(num_layers=1, hidden_size=3, embedding_size=2, bidirectional=both), V)
        with pytest.raises(SettingError, match=r"^direction is .*: it must be one of forward, backward$") as caught:
            model(some_ids(1, 3), direction=direction)
        assert caught.value.setting == "direction"


def test_a_one_way_model_does_not_read_backward_and_says_how_to_get_one_that_does():
    model = CharModel(ModelConfig(num_layers=1, hidden_size=3, embedding_size=2), V)
    refused = [
        lambda: model(some_ids(1, 3), direction="backward"),
        lambda: model.read(some_ids(1, 3), direction="backward"),
        lambda: evaluate_ids(model, np.arange(5), direction="backward"),
    ]
    for ask in refused:
        with pytest.raises(SettingError, match=r"^[^\n]*reading backward[^\n]*`bidirectional=True`[^\n]*$"):
            ask()
    assert not hasattr(model, "backward_layers")
    assert not hasattr(model, "cloze")


def dropped_in(model, direction, masks):
    """Which units each place of a stack lacks, from input to output."""
    seen = []

    def watch(module, inputs):
        seen.append(inputs[0] == 0)

    modules = (*own_layers(model, direction), model.output)
    handles = [module.register_forward_pre_hook(watch) for module in modules]
    logits_of(model, some_ids(6, 20), direction, masks)
    for handle in handles:
        handle.remove()
    return seen


def test_no_mask_of_one_direction_is_a_mask_of_the_other():
    shape = ModelConfig("gru", 3, 64, 64, 0.5, 0.5, bidirectional=True)
    model = CharModel(shape, V)
    masks = [mask for direction in DIRECTIONS for mask in dropped_in(model, direction, NOISE)]
    assert len(masks) == 8
    for at, one in enumerate(masks):
        assert 0.4 < one.float().mean() < 0.6
        for other in masks[:at]:
            assert 0.4 < (one == other).float().mean() < 0.6


@every_direction
def test_masks_are_addressed_and_leave_torchs_generator_alone(direction):
    model, ids = new_model(dropout=0.5), some_ids(2, 6)
    torch.manual_seed(1)
    place = torch.random.get_rng_state()
    before = logits_of(model, ids, direction, NOISE)
    assert torch.equal(torch.random.get_rng_state(), place)
    torch.manual_seed(2)
    assert torch.equal(logits_of(model, ids, direction, NOISE), before)
    for other in (DropoutKey(5, 10), DropoutKey(6, 9), None):
        assert not torch.equal(logits_of(model, ids, direction, other), before)


def test_the_cloze_layer_starts_as_the_product_of_the_two_predictions():
    model = CharModel(ModelConfig(num_layers=1, hidden_size=6, embedding_size=5, bidirectional=True), V)
    left, right = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.cloze_logits(left, right), model.output(left) + model.output(right))


@every_kind
def test_the_cloze_layer_is_its_formula(cell, layers):
    model = new_model(cell, layers)
    left, right = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    found = model.cloze_logits(left, right).detach().numpy()
    w = {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}
    left, right = left.double().numpy(), right.double().numpy()
    inner = left @ w["cloze.left.weight"].T + right @ w["cloze.right.weight"].T + w["cloze.right.bias"]
    expected = (left + right) @ w["output.weight"].T + 2 * w["output.bias"]
    expected += np.tanh(inner) @ w["cloze.output.weight"].T + w["cloze.output.bias"]
    assert found == pytest.approx(expected, abs=1e-4)


# What each direction reads


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_backward_batches_are_the_same_windows_read_from_their_end(window, more, seed, step):
    ahead = RandomBatches(np.arange(window + more), 5, window, seed)
    behind = BackwardBatches(ahead)
    one, other = ahead.batch(step), behind.batch(step)
    assert behind.steps_per_epoch == ahead.steps_per_epoch
    for row in range(5):
        whole = [*one.inputs[row], one.targets[row, -1]]
        assert [*other.inputs[row], other.targets[row, -1]] == whole[::-1]
    assert np.array_equal(other.inputs - 1, other.targets)
    assert other.fresh[:, 0].all()
    assert np.array_equal(other.fresh, one.fresh)
    assert other.inputs.dtype == other.targets.dtype == np.int64
    torch.from_numpy(other.inputs), torch.from_numpy(other.targets)  # which takes no negative strides


@settings(max_examples=20)
@given(st.integers(33, 60), st.integers(1, 7), st.integers(1, 13), st.integers(0, 2**64 - 1))
def test_both_ways_every_position_is_a_target_equally_often_or_once_more(length, rows, window, seed):
    trainer = Trainer(places(length), SMALL, config(batch_size=rows, seq_length=window, seed=seed))
    assert list(trainer.batches) == ["forward", "backward"]
    for direction, by in (("forward", 1), ("backward", -1)):
        counts, last = np.zeros(length, int), None
        for step in range(2 * length // (rows * window) + 2):
            batch = trainer.batches[direction].batch(step)
            assert np.array_equal((batch.inputs + by) % length, batch.targets)
            assert batch.fresh[:, 0].tolist() == [step == 0] * rows
            assert not batch.fresh[:, 1:].any()
            assert last is None or np.array_equal(batch.inputs[:, 0], last)
            last = batch.targets[:, -1]
            counts += np.bincount(batch.targets.ravel(), minlength=length)
            assert np.ptp(counts) <= 1


def test_random_windows_are_read_from_both_ends():
    batches = Trainer(places(50), SMALL, config(batching="random", seq_length=6)).batches
    for step in (0, 1, 17):
        ahead, behind = (batches[direction].batch(step) for direction in DIRECTIONS)
        assert np.array_equal(behind.inputs, ahead.targets[:, ::-1])
        assert np.array_equal(behind.targets, ahead.inputs[:, ::-1])


def test_a_one_way_run_reads_one_way():
    trainer = Trainer(corpus(), ModelConfig(num_layers=1, hidden_size=4, embedding_size=3), config())
    assert list(trainer.batches) == ["forward"]
    assert trainer.train_step.cloze is None


@settings(max_examples=25)
@given(st.integers(33, 400), st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_cloze_windows_are_a_pure_function_of_seed_and_step(length, trained, seed, step):
    ids = np.arange(length)
    task = ClozeTask(ids, config(batch_size=trained, seq_length=3, seed=seed))
    window = min(length, WINDOW)
    rows = max(1, 3 * trained // window)
    task.batches.windows(step + 3)
    found = task.batches.windows(step)
    starts = [int(uniform(seed, row, step, Purpose.CLOZE) * (length - window + 1)) for row in range(rows)]
    assert found.tolist() == [list(range(start, start + window)) for start in starts]


def test_processes_share_the_cloze_windows_of_a_step():
    ids, settings = np.arange(1000), config(batch_size=64, seq_length=20)
    whole = ClozeTask(ids, settings)
    parts = [ClozeTask(ids, settings, rows) for rows in (range(3), range(3, 10))]
    assert [part.every for part in parts] == [whole.every] * 2
    assert np.array_equal(np.concatenate([part.batches.windows(4) for part in parts]), whole.batches.windows(4))


def test_cloze_windows_are_not_those_of_training():
    ids = np.arange(10**6)
    task = ClozeTask(ids, config(batch_size=256, seq_length=WINDOW))
    trained = RandomBatches(ids, 256, WINDOW - 1, 0)
    for step in range(3):
        assert not (task.batches.windows(step)[:, 0] == trained.windows(step)[:, 0]).any()


@pytest.mark.parametrize("length", [33, 40, 127, 128, 129, 5000])
@pytest.mark.parametrize(
    ("batch_size", "seq_length"), [(1, 1), (1, 2), (3, 7), (4, 32), (1, 128), (5, 26), (32, 128), (64, 256), (7, 333)]
)
def test_the_cloze_layer_reads_its_share_of_what_is_trained_at_most_and_nearly_that(length, batch_size, seq_length):
    task = ClozeTask(np.zeros(length, np.uint8), config(batch_size=batch_size, seq_length=seq_length))
    period = next(step for step in range(1, 10_000) if task.due(step))
    assert [step for step in range(4 * period) if task.due(step)] == [0, period, 2 * period, 3 * period]
    share = task.batches.windows(0).size / (period * batch_size * seq_length)
    assert share <= CHARACTERS_SHARE * (1 + 1e-12) <= 0.2
    assert share > CHARACTERS_SHARE * (period - 1) / period - 1e-12


@pytest.mark.parametrize("length", [2, 20, 32])
def test_a_text_too_short_for_the_cloze_layer_is_named(length, tmp_path):
    with pytest.raises(
        DataError, match=rf"^[^\n]*at least 33 characters of training text, found {length}; [^\n]*one way$"
    ):
        Trainer(places(length), SMALL, config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_a_text_of_33_characters_is_long_enough(batching, tmp_path):
    settings = config(steps=3, batch_size=3, seq_length=11, batching=batching)
    trainer = Trainer(places(33), SMALL, settings, tmp_path)
    assert all(math.isfinite(loss) for progress in trainer.run() for loss in progress.train_losses.values())
    assert trainer.counters.cloze_applied == 1
    assert read_model(tmp_path).training["step"] == 3


@settings(max_examples=60)
@given(st.integers(0, 9000), st.integers(0, 9000))
@example(32, 9000)
@example(33, 9000)
@example(8192, 8192)
@example(8320, 8320)
def test_windows_to_validate_on_are_even_and_no_more_than_asked_for(length, size):
    window, blocks = min(length, WINDOW), list(even_windows(np.arange(length), size))
    if length < 2 * MARGIN + 1:
        assert blocks == []
        return
    assert [len(block) for block in blocks[:-1]] == [ROWS] * (len(blocks) - 1)
    found = np.concatenate(blocks)
    assert found.shape == (max(1, min(size, length) // window), window)
    assert len(blocks) == math.ceil(len(found) / ROWS)
    assert found.dtype == np.int64
    assert np.array_equal(found, found[:, :1] + np.arange(window))
    assert found[0, 0] == 0
    assert len(found) == 1 or found[-1, -1] == length - 1
    assert len(found) == 1 or np.ptp(np.diff(found[:, 0])) <= 1


# What the cloze layer learns


@torch.inference_mode()
def slow_cloze_costs(model, window):
    """The cost of every character that counts, from states read one id at a time: the obvious twin of `cloze_loss`."""
    after: dict[str, dict[int, torch.Tensor]] = {"forward": {}, "backward": {}}
    for direction, order in (("forward", range(len(window))), ("backward", reversed(range(len(window))))):
        state = None
        for t in order:
            values, state = model.read(torch.tensor([[int(window[t])]]), state, direction=direction)
            after[direction][t] = values[0, 0]
    costs = []
    for t in range(len(window)):
        if t >= MARGIN and t < len(window) - MARGIN:
            logits = model.cloze_logits(after["forward"][t - 1], after["backward"][t + 1])
            costs.append(-torch.log_softmax(logits.double(), 0)[int(window[t])].item())
    return costs


@pytest.mark.parametrize("width", [33, 34, 45])
@every_kind
def test_the_cloze_loss_is_that_of_every_position_away_from_the_edges(cell, layers, width):
    model, windows = new_model(cell, layers, dropout=0.5), some_ids(2, width).numpy()
    loss, count = cloze_loss(model, windows)
    costs = [cost for window in windows for cost in slow_cloze_costs(model, window)]
    assert MARGIN == 16
    assert count == len(costs) == 2 * (width - 32)
    assert loss.item() == pytest.approx(np.mean(costs), abs=1e-5)


@every_kind
def test_a_cloze_prediction_sees_all_of_its_window_but_the_character_itself(cell, layers, monkeypatch):
    model, windows = new_model(cell, layers), some_ids(2, 39).numpy()
    seen, blocks = [], loss_module._blocks

    def watched(*arguments):
        for part, logits in blocks(*arguments):
            seen.append(logits.reshape(2, -1, V).clone())
            yield part, logits

    monkeypatch.setattr(loss_module, "_blocks", watched)
    cloze_loss(model, windows)
    for t in range(39):
        changed = windows.copy()
        changed[:, t] = (changed[:, t] + 3) % V
        cloze_loss(model, changed)
        moved = (seen[-1] - seen[0]).abs().amax(2)
        assert moved.shape == (2, 39 - 2 * MARGIN)
        for at in range(MARGIN, 39 - MARGIN):
            if at == t:
                assert (moved[:, at - MARGIN] == 0).all()
            elif abs(at - t) < 4:
                assert (moved[:, at - MARGIN] > 1e-6).all()


@every_kind
def test_the_gradient_of_the_cloze_loss_reaches_the_cloze_layer_only(cell, layers):
    model = new_model(cell, layers)
    loss, _ = cloze_loss(model, some_ids(2, 40).numpy())
    loss.backward()
    for name, weight in model.named_parameters():
        if name.startswith("cloze."):
            assert weight.grad is not None, name
            assert weight.grad.any(), name
        else:
            assert weight.grad is None, name


@pytest.mark.parametrize("clip_norm", [0.05, 0.0])
def test_the_stacks_learn_the_same_whether_the_cloze_layer_learns_or_not(clip_norm, monkeypatch):
    due = [step for step in range(10) if ClozeTask(corpus().train, config()).due(step)]
    assert len(due) == 2
    found = []
    for learns in (True, False):
        if not learns:
            monkeypatch.setattr(ClozeTask, "due", lambda self, step: False)
        trainer = Trainer(corpus(), SMALL, config(steps=10, clip_norm=clip_norm))
        losses = [dict(progress.train_losses) for progress in trainer.run() if progress.doing == "training"]
        assert trainer.counters.cloze_applied == (2 if learns else 0)
        assert [step for step, loss in enumerate(losses) if "cloze" in loss] == (due if learns else [])
        found.append(([(loss["forward"], loss["backward"]) for loss in losses], weights_of(trainer.model)))
    (one_losses, one), (other_losses, other) = found
    assert one_losses == other_losses
    for name, weight in one.items():
        assert torch.equal(weight, other[name]) is not name.startswith("cloze."), name
    fresh = CharModel(SMALL, len(corpus().vocabulary)).state_dict()
    assert all(torch.equal(other[name], fresh[name]) for name in fresh if name.startswith("cloze."))


# Training


def clipped(loss, named, limit):
    """The gradient of a loss by name, no longer than the limit, and how long it was."""
    gradients = torch.autograd.grad(loss, list(named.values()))
    length = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in gradients))
    factor = min(1.0, limit / length) if limit else 1.0
    return {name: gradient * factor for name, gradient in zip(named, gradients, strict=True)}, length


@pytest.mark.parametrize("clip_norm", [0.02, 0.0, 100.0])
@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_a_step_follows_the_gradients_of_both_losses_each_clipped_alone(batching, clip_norm):
    trainer = Trainer(corpus(), SMALL, config(batching=batching, clip_norm=clip_norm, state_reset=0.3))
    real, expected, steps = trainer.state.optimizer.step, {}, []

    def watched():
        for name, weight in trainer.model.named_parameters():
            if name in expected:
                assert (weight.grad - expected[name]).abs().max() < 1e-6 * max(1, clip_norm), name
            else:
                assert weight.grad is None, name
        steps.append(trainer.counters.step)
        real()

    trainer.state.optimizer.step = watched
    run = iter(trainer.run())
    for step in range(8):
        model, expected, lengths = copy.deepcopy(trainer.model), {}, []
        for direction in DIRECTIONS:
            batch = trainer.batches[direction].batch(step)
            state = carried(trainer, direction, step)
            logits, _ = model(torch.from_numpy(batch.inputs), state, DropoutKey(0, step), direction)
            loss = cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.targets).flatten())
            moved = ("embedding.", "output.", f"{direction}_layers.")
            named = {name: weight for name, weight in model.named_parameters() if name.startswith(moved)}
            gradients, length = clipped(loss, named, clip_norm)
            lengths.append(length)
            for name, gradient in gradients.items():
                expected[name] = expected.get(name, 0) + gradient
        if trainer.train_step.cloze.due(step):
            loss, _ = trainer.train_step.cloze.loss(model, step)
            named = {name: weight for name, weight in model.named_parameters() if name.startswith("cloze.")}
            expected |= clipped(loss, named, clip_norm)[0]
        next(progress for progress in run if progress.doing == "training")
        assert trainer.counters.grad_norm == pytest.approx(math.hypot(*lengths), rel=1e-4)
    assert steps == list(range(8))
    assert trainer.counters.cloze_applied == 2


def test_the_losses_of_a_step_are_those_of_its_two_batches():
    trainer = Trainer(corpus(), SMALL, config(steps=1))
    expected = {}
    for direction in DIRECTIONS:
        batch = trainer.batches[direction].batch(0)
        logits, _ = trainer.model(torch.from_numpy(batch.inputs), None, DropoutKey(0, 0), direction)
        p = torch.log_softmax(logits.double(), -1)
        targets = [(i, j, batch.targets[i, j]) for i in range(4) for j in range(32)]
        expected[direction] = -np.mean([p[i, j, id_].item() for i, j, id_ in targets])
    expected["cloze"] = trainer.train_step.cloze.loss(trainer.model, 0)[0].item()
    progress = next(progress for progress in trainer.run() if progress.doing == "training")
    assert dict(progress.train_losses) == pytest.approx(expected, abs=1e-6)
    assert progress.train_loss == pytest.approx((expected["forward"] + expected["backward"]) / 2, abs=1e-6)


def test_each_direction_carries_its_own_state_and_some_of_its_rows_begin_afresh():
    text = TEXT.replace("\n", " ")
    trainer = Trainer(corpus(text), SMALL, config(batch_size=64, seq_length=4, state_reset=0.25))
    next(iter(trainer.run()))
    assert list(trainer.state.hidden) == ["forward", "backward"]
    for direction, first in (("forward", 0), ("backward", 1_000_000)):
        state = carried(trainer, direction, 1)
        kept = uniform(0, np.arange(first, first + 64), 1, Purpose.RESET) >= 0.25
        assert 0 < kept.sum() < 64
        for layer, before in zip(state, trainer.state.hidden[direction], strict=True):
            assert not layer.requires_grad
            assert torch.equal(layer, before * torch.from_numpy(kept)[:, None])
        inputs = torch.from_numpy(trainer.batches[direction].batch(0).inputs)
        fresh = CharModel(SMALL, len(trainer.corpus.vocabulary))
        _, expected = fresh(inputs, None, DropoutKey(0, 0), direction)
        for layer, wanted in zip(trainer.state.hidden[direction], expected, strict=True):
            assert (layer - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_states_are_fresh_where_a_line_end_is_read_in_both_directions(line_end):
    """At the line end's first character in the order of reading."""
    learned = corpus("one line\n".replace("\n", line_end) * 300, newline="keep")
    trainer = Trainer(learned, SMALL, config(batch_size=8, seq_length=12, state_reset=0.5))
    for direction, first in (("forward", line_end[0]), ("backward", line_end[-1])):
        windows = [trainer.batches[direction].batch(step) for step in range(1, 30)]
        inputs, fresh = (np.stack([getattr(batch, name) for batch in windows]) for name in ("inputs", "fresh"))
        assert set(inputs[fresh].tolist()) == set(learned.vocabulary.encode(first).tolist())
        assert fresh.sum() / (29 * 8) == pytest.approx(0.5, abs=0.15)


def carried(trainer, direction, step):
    """The state that a direction's rows start from at a step."""
    batches = {direction: trainer.batches[direction].batch(step)}
    *_, fresh = trainer.train_step.minibatches(trainer.state, batches)[direction]
    return start_fresh(trainer.state.hidden[direction], fresh)[0] if trainer.state.hidden else None


@pytest.mark.parametrize("batching", ["consecutive", "random"])
def test_two_processes_that_share_the_rows_have_the_gradient_of_one(batching):
    """The rows that are drawn anew and the dropout masks are those of the same rows."""
    settings = config(batch_size=6, batching=batching, clip_norm=0, state_reset=0.5)
    trainers = [Trainer(corpus(), SMALL, settings) for _ in range(3)]
    state = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, SMALL.state_size)).astype(np.float32))
    gradients = []
    for trainer, rows in zip(trainers, (range(6), range(2), range(2, 6)), strict=True):
        step, trainer.state.step = TrainStep(settings, rows=rows), 3
        size = settings.batch_size, settings.seq_length, settings.seed
        by_direction = make_batches(trainer.corpus.train, DIRECTIONS, batching, *size, rows)
        batches = {direction: batches.batch(3) for direction, batches in by_direction.items()}
        for direction, batch in batches.items():
            trainer.state.hidden[direction] = (state[rows.start : rows.stop],) * SMALL.num_layers
            assert len(batch.inputs) == len(rows)
        step.gradients(trainer.state, step.minibatches(trainer.state, batches), step.dropout_key(trainer.state))
        weights = [weight for direction in DIRECTIONS for weight in trainer.state.weights[direction]]
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights]))
    whole, third, rest = gradients
    assert (third / 3 + rest * 2 / 3 - whole).abs().max() < 1e-6
    assert (third - whole).abs().max() > 1e-3


def test_both_directions_and_the_cloze_layer_learn(tmp_path):
    trainer = Trainer(corpus(), SMALL, config(steps=70, lr=0.03), tmp_path)
    first = next(progress for progress in trainer.run() if progress.doing == "training")
    finish(trainer)
    assert set(first.train_losses) == {"forward", "backward", "cloze"}
    for loss in first.train_losses.values():
        assert loss == pytest.approx(math.log(len(trainer.corpus.vocabulary)), abs=0.4)
    assert trainer.summary["valid_loss_forward"] < 1.3
    assert trainer.summary["valid_loss_backward"] < 1.3
    assert trainer.summary["valid_cloze"] < min(
        trainer.summary["valid_loss_forward"], trainer.summary["valid_loss_backward"]
    )


def until_cloze_is_due(trainer):
    """Train until the next step is one at which the cloze layer learns, not for the first time."""
    run: Iterator = iter(trainer.run())
    while not (trainer.counters.step and trainer.train_step.cloze.due(trainer.counters.step)):
        next(run)
    return run


def spoil(where, logits):
    """Logits whose loss, or whose gradient, is not finite."""
    if not torch.is_grad_enabled():
        return logits
    if where == "loss":
        return logits * math.nan
    logits.register_hook(lambda gradient: gradient * math.inf)
    return logits


@pytest.mark.parametrize("part", DIRECTIONS)
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_one_direction_of_which_is_not_finite_is_not_applied_at_all(part, where, monkeypatch):
    trainer = Trainer(corpus(), SMALL, config(steps=12, eval_every=100))
    run = until_cloze_is_due(trainer)
    before, counters = weights_of(trainer.model), copy.deepcopy(trainer.counters)
    moments = copy.deepcopy(trainer.state.optimizer.state_dict()["state"])
    hidden = {direction: [layer.clone() for layer in state] for direction, state in trainer.state.hidden.items()}
    read = CharModel.read

    def broken(self, ids, state=None, masks=None, direction="forward", fresh=None):
        values, after = read(self, ids, state, masks, direction, fresh)
        return (spoil(where, values) if direction == part and torch.is_grad_enabled() else values), after

    with monkeypatch.context() as patch:
        patch.setattr(CharModel, "read", broken)
        progress = next(run)
    assert progress.step == counters.step + 1
    assert math.isnan(progress.train_loss)
    assert dict(progress.train_losses) == {}
    assert all(torch.equal(before[name], weight) for name, weight in trainer.model.state_dict().items())
    assert all(weight.grad is None for weight in trainer.model.parameters())
    for number, moment in trainer.state.optimizer.state_dict()["state"].items():
        assert all(torch.equal(moment[key], moments[number][key]) for key in moment)
    assert list(trainer.state.hidden) == list(hidden)
    for direction, state in hidden.items():
        assert all(torch.equal(one, other) for one, other in zip(state, trainer.state.hidden[direction], strict=True))
    assert trainer.counters.bad_steps == 1
    for name in vars(counters):
        if name not in ("step", "bad_steps", "since_seconds", "logged_step") and not name.startswith("since_"):
            assert getattr(trainer.counters, name) == getattr(counters, name), name
    assert all(math.isfinite(progress.train_loss) for progress in run)
    assert trainer.counters.applied == 11


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_cloze_loss_that_is_not_finite_harms_nothing_but_the_cloze_layer(where, monkeypatch):
    found = []
    for breaks in (False, True):
        trainer = Trainer(corpus(), SMALL, config(steps=12, eval_every=100))
        run = until_cloze_is_due(trainer)
        before, applied = weights_of(trainer.model), trainer.counters.cloze_applied
        with monkeypatch.context() as patch:
            if breaks:
                kind = type(trainer.model.cloze)
                sound = kind.hidden
                patch.setattr(kind, "hidden", lambda self, *args, sound=sound: spoil(where, sound(self, *args)))
            progress = next(run)
        assert math.isfinite(progress.train_loss)
        assert ("cloze" in progress.train_losses) is not breaks
        assert trainer.counters.cloze_applied == applied + (not breaks)
        assert trainer.counters.bad_steps == 0
        for name, weight in trainer.model.named_parameters():
            still = breaks and name.startswith("cloze.")
            assert torch.equal(weight, before[name]) is still, name
        one_way = [(progress.train_losses["forward"], progress.train_losses["backward"]) for progress in run]
        ends = {name: weight for name, weight in weights_of(trainer.model).items() if "cloze" not in name}
        found.append((one_way, ends))
    (losses, weights), (other_losses, other_weights) = found
    assert losses == other_losses
    assert all(torch.equal(weight, other_weights[name]) for name, weight in weights.items())


# What a run says


TWO_WAY_KEYS = {f"{role}_{name}" for role in ("train", "valid") for name in ("loss_forward", "loss_backward", "cloze")}


def lines(folder: Path):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_name_the_losses_of_both_directions_and_of_cloze(tmp_path):
    trainer = Trainer(corpus(), SMALL, config(schedule="constant"), tmp_path)
    steps, valid = [], {}
    for progress in trainer.run():
        if progress.doing == "training":
            steps.append(dict(progress.train_losses))
            if progress.step % 5 == 0:
                valid[progress.step] = (progress.valid_loss, dict(progress.valid_losses))
    found, last = [line for line in lines(tmp_path) if "final" not in line], 0
    assert [line["step"] for line in found] == [4, 5, 8, 10, 12]
    for line in found:
        assert line.keys() >= TWO_WAY_KEYS
        since = steps[last : line["step"]]
        for name in DIRECTIONS:
            assert line[f"train_loss_{name}"] == pytest.approx(np.mean([loss[name] for loss in since]), rel=1e-6)
        assert line["train_loss"] == pytest.approx((line["train_loss_forward"] + line["train_loss_backward"]) / 2)
        learned = [loss["cloze"] for loss in since if "cloze" in loss]
        assert line["train_cloze"] == (pytest.approx(np.mean(learned), rel=1e-6) if learned else None)
        if line["step"] % 5:
            assert [line[f"valid_{name}"] for name in ("loss", "loss_forward", "loss_backward", "cloze")] == [None] * 4
        else:
            loss, parts = valid[line["step"]]
            assert line["valid_loss"] == loss == pytest.approx((parts["forward"] + parts["backward"]) / 2)
            assert (line["valid_loss_forward"], line["valid_loss_backward"]) == (parts["forward"], parts["backward"])
            assert line["valid_cloze"] == parts["cloze"]
        last = line["step"]
    assert {line["train_cloze"] is None for line in found} == {True, False}
    assert set(valid) == {5, 10}


def test_validation_scores_both_directions_and_evenly_spaced_windows_between_them():
    trainer = Trainer(corpus(TEXT * 5, valid_fraction=0.4), SMALL, config(eval_every=1))
    ids = trainer.corpus.valid
    progress = next(progress for progress in trainer.run() if progress.doing == "training")
    expected = {name: evaluate_ids(trainer.model, ids, direction=name).mean for name in DIRECTIONS}
    (windows,) = even_windows(ids, len(ids) // 4)
    assert len(windows) == 3
    expected["cloze"] = np.mean([cost for window in windows for cost in slow_cloze_costs(trainer.model, window)])
    assert dict(progress.valid_losses) == pytest.approx(expected, abs=1e-5)
    assert progress.valid_loss == pytest.approx((expected["forward"] + expected["backward"]) / 2, abs=1e-5)


@pytest.mark.parametrize("unit", ["character", "byte"])
def test_the_model_file_says_what_both_directions_score(unit, tmp_path):
    data = corpus(TEXT.replace("s", "ß"), unit=unit, valid_fraction=0.2, test_fraction=0.2)
    finish(Trainer(data, SMALL, config(), tmp_path))
    model, summary = load_model(tmp_path), read_model(tmp_path).training
    for role, ids in (("valid", data.valid), ("test", data.test)):
        for name in DIRECTIONS:
            loss = evaluate_ids(model, ids, vocabulary=data.vocabulary, direction=name)
            assert summary[f"{role}_loss_{name}"] == pytest.approx(loss.mean, abs=1e-5)
            assert summary[f"{role}_characters"] == loss.characters == data.vocabulary.count_characters(ids) - 1
        mean = (summary[f"{role}_loss_forward"] + summary[f"{role}_loss_backward"]) / 2
        assert summary[f"{role}_loss"] == pytest.approx(mean)
        (windows,) = even_windows(ids, len(ids) // 4)
        loss, _ = cloze_loss(model, windows)
        assert summary[f"{role}_cloze"] == pytest.approx(loss.item(), abs=1e-5)
    final = lines(tmp_path)[-1]
    assert final["final"] is True
    for name in ("loss", "loss_forward", "loss_backward", "cloze"):
        assert final[f"valid_{name}"] == summary[f"valid_{name}"]


def test_the_best_model_is_the_one_whose_mean_of_both_directions_is_least(tmp_path):
    """A learning rate that grows worse: the best weights are not the last."""
    data = corpus("ab" * 200 + "".join(np.random.default_rng(0).choice(list("abcdefgh"), 400)), valid_fraction=0.5)
    settings = config(steps=80, lr=0.05, schedule="constant", batch_size=4, seq_length=8)
    trainer = finish(Trainer(data, SMALL, settings, tmp_path))
    scored = {line["step"]: line for line in lines(tmp_path) if line["valid_loss"] is not None and "final" not in line}
    mean = {step: (line["valid_loss_forward"] + line["valid_loss_backward"]) / 2 for step, line in scored.items()}
    best = min(mean, key=mean.get)
    assert read_model(tmp_path).training["step"] == trainer.counters.best_step == best < 80
    assert trainer.summary["valid_loss"] == pytest.approx(mean[best], abs=1e-5)


def test_a_validation_part_too_short_for_cloze_has_no_cloze_loss(tmp_path):
    data = corpus(TEXT[:300])
    assert len(data.valid) < 33
    trainer = Trainer(data, SMALL, config(steps=5), tmp_path)
    *_, last = trainer.run()
    assert last.valid_losses.keys() == {"forward", "backward"}
    assert lines(tmp_path)[-1]["valid_cloze"] is None
    assert lines(tmp_path)[-1]["valid_loss_backward"] is not None
    assert "valid_cloze" not in trainer.summary


def test_a_one_way_run_names_no_directions(tmp_path):
    shape = ModelConfig(num_layers=1, hidden_size=6, embedding_size=4)
    trainer = Trainer(corpus(), shape, config(), tmp_path)
    for progress in trainer.run():
        assert dict(progress.train_losses) == dict(progress.valid_losses) == {}
    assert not any(line.keys() & TWO_WAY_KEYS for line in lines(tmp_path))
    assert not read_model(tmp_path).training.keys() & TWO_WAY_KEYS


def test_the_loss_of_folded_characters_is_the_one_that_evaluate_finds_in_either_direction(tmp_path):
    rare = "".join(chr(0x400 + number) + "abcabc" for number in range(100))
    data = corpus(rare, min_count=3, valid_fraction=0.2)
    trainer = finish(Trainer(data, SMALL, config(steps=3), tmp_path))
    text = rare[len(data.train) :]
    for name in DIRECTIONS:
        found = evaluate(load_model(tmp_path), data.vocabulary, text, direction=name)
        assert found.folded > 10
        assert trainer.summary[f"valid_loss_{name}"] == pytest.approx(found.nats_per_character, abs=1e-5)


# Scoring backward


@torch.inference_mode()
def slow_costs(model, ids, direction="backward"):
    """The cost of every id but the first that is read, one at a time, in the order of reading."""
    order = [int(id_) for id_ in (ids[::-1] if direction == "backward" else ids)]
    state, costs = None, []
    for at in range(1, len(order)):
        logits, state = model(torch.tensor([[order[at - 1]]]), state, direction=direction)
        costs.append(-torch.log_softmax(logits[0, 0].double(), 0)[order[at]].item())
    return costs


@settings(max_examples=25)
@given(st.integers(2, 120), st.integers(1, 30), st.sampled_from(["lstm", "gru"]))
def test_scoring_backward_agrees_with_one_character_at_a_time(length, rows, cell):
    """Shorter than the warm-up, so every row has read all that stands behind it."""
    model = build_model(small_model(cell, bidirectional=True))
    ids = np.random.default_rng(length).integers(0, 10, length).astype(np.uint8)
    expected = math.fsum(slow_costs(model, ids))
    for used in (1, rows):
        loss = evaluate_ids(model, ids, direction="backward", rows=used)
        assert loss.characters == length - 1
        assert loss.nats == pytest.approx(expected, abs=1e-4 * length)


def test_scoring_backward_carries_its_state_over_many_windows():
    model = build_model(small_model(bidirectional=True))
    ids = np.random.default_rng(0).integers(0, 10, 900).astype(np.uint8)
    one, other = (evaluate_ids(model, ids, rows=1, direction=direction) for direction in ("backward", "forward"))
    assert one.mean == pytest.approx(np.mean(slow_costs(model, ids)), abs=1e-4)
    assert other.mean == pytest.approx(np.mean(slow_costs(model, ids, "forward")), abs=1e-4)
    assert abs(one.mean - other.mean) > 0.01


def test_more_rows_cost_little():
    model = build_model(small_model(bidirectional=True, scale=1.5))
    ids = np.random.default_rng(0).integers(0, 10, 4000).astype(np.uint8)
    whole = evaluate_ids(model, ids, rows=1, direction="backward")
    for rows in (None, 3, 8):
        cut = evaluate_ids(model, ids, rows=rows, direction="backward")
        assert cut.characters == whole.characters == 3999
        assert cut.mean == pytest.approx(whole.mean, abs=1e-4)


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=30), st.none() | st.integers(1, 9))
def test_bytes_are_scored_backward_but_characters_are_counted(text, rows):
    model = build_model(small_model(unit="byte", bidirectional=True))
    found = evaluate(model, Vocabulary(unit="byte"), text, rows=rows, direction="backward")
    counted = text[:-1].encode()
    assert (found.characters, found.bytes) == (len(text) - 1, len(counted))
    expected = slow_costs(model, text.encode())[-len(counted) :]
    assert found.nats == pytest.approx(math.fsum(expected), rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("text", "uncounted"), [("éa字", 3), ("字éa", 1), ("é字é", 2), ("a😀", 4)])
def test_the_last_character_of_a_text_is_read_but_not_counted(text, uncounted):
    model = build_model(small_model(unit="byte", bidirectional=True))
    found = evaluate(model, Vocabulary(unit="byte"), text, direction="backward")
    costs = slow_costs(model, text.encode())
    assert (found.characters, found.bytes) == (len(text) - 1, len(text.encode()) - uncounted)
    assert found.nats == pytest.approx(math.fsum(costs[uncounted - 1 :]), rel=1e-5)


def test_one_character_of_many_bytes_is_too_short_either_way():
    model = build_model(small_model(unit="byte", bidirectional=True))
    for direction in DIRECTIONS:
        with pytest.raises(DataError, match="at least 2 characters"):
            evaluate(model, Vocabulary(unit="byte"), "字", direction=direction)


@settings(max_examples=25)
@given(st.text("abcxyzé字", min_size=2, max_size=30))
def test_folded_and_unseen_characters_pay_for_their_place_backward(text):
    file = small_model(characters="abc", folded="xyz", bidirectional=True)
    model = build_model(file)
    found = evaluate(model, file.vocabulary, text, direction="backward")
    folded = sum(character in "xyz" for character in text[:-1])
    unseen = sum(character in "é字" for character in text[:-1])
    nats = math.fsum(slow_costs(model, ["abc".find(character) % 4 for character in text]))
    nats += folded * math.log(4) + unseen * (math.log(4) + math.log(CODE_POINTS - 6))
    assert (found.folded, found.unseen, found.characters) == (folded, unseen, len(text) - 1)
    assert found.bytes == len(text[:-1].encode())
    assert found.nats == pytest.approx(nats, rel=1e-5, abs=1e-4)


def test_unknown_characters_are_left_out_of_a_backward_score():
    file = small_model(characters="abc", bidirectional=True)
    model = build_model(file)
    skipped, plain = (
        evaluate(model, file.vocabulary, text, unknown="skip", direction="backward") for text in ("éaébcé字", "abc")
    )
    assert (skipped.skipped, plain.skipped) == (4, 0)
    assert (skipped.characters, skipped.bytes, skipped.nats) == (plain.characters, plain.bytes, plain.nats)
