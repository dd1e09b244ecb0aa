"""Sizes that choose themselves: model, batch, dropout and rate from the text, the budget and the machine's speed.

The rules are fitted to runs on texts of 20,000 to 5 million characters (`docs/pages/experiments.md`); each is a line.
Whatever a person gives is left as it is, but for minutes that would only teach a text by heart.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from chargen.data.corpus import Corpus
from chargen.errors import amount
from chargen.kernels.threads import threads
from chargen.model.config import GATES, ModelConfig
from chargen.settings import make_settings
from chargen.training.config import DEFAULT_MINUTES, TAUGHT_PARTS, TrainConfig

SIZES = (64, 96, 128, 192, 256, 384, 512, 640, 768, 1024)
PRESETS = {"small": 128, "medium": 384, "large": 1024}
"""Hidden units."""
IDS_PER_WEIGHT = 3.5
"""Characters trained for each recurrent weight, at least: larger models would not get far enough in the budget."""
MOST_TEACHERS, MOST_MEMBERS = 2, 5
"""Networks that choose themselves where a budget is longer than one can use."""
MANY_ROUNDS = 4
"""A budget that is so many times longer than a network can use is for as many teachers as there may be."""
WRITING_TIME = 0.25
"""Time that a teacher takes to write, for each that a step takes to learn."""
TAUGHT_WEIGHTS = 2.5
"""How many times more weights a network may have that does not read the text alone, but also what teachers write."""
MAX_EPOCHS = 40
"""How often a text is read, at most, in a budget of minutes with enough steps: then it is only learned by heart."""
FEWEST_STEPS, MOST_STEPS, STEPS_FOR_EACH = 1_500, 3_000, 3
"""Steps that are enough: so many for each different character, within these bounds. Where there would be fewer, windows
are shortened; from then on more steps gain less than shorter windows take in time.
"""
TIMED_SETTINGS = "device", "precision", "batch_size", "seq_length"
"""What a reference's time depends on, of the training settings."""
ROWS_OF_A_CORE = 8
"""Of many cores each has up to so many rows to compute; with more of them steps would be fewer."""
MOST_RISE = 2.0
"""How much higher the peak rate may be for large minibatches; what large models bear beyond that was not tried."""
MIN_SEQ_LENGTH = 32
"""Characters of the shortest windows: gradients flow no farther. Fewer rows instead did not learn better."""
MIN_WINDOWS = 4
"""Of each row in a text."""
DEFAULT_ROWS, DEFAULT_IDS = TrainConfig().batch_size, TrainConfig().batch_size * TrainConfig().seq_length
"""Of a step."""
MANY_CHARACTERS = 1_000
"""Different characters from which on embedding and output layer are one table: two learn each from too few examples."""
CHOSEN_SETTINGS = ("hidden_size", "dropout", "weight_decay", "lr", "batch_size", "seq_length")
"""Settings that are chosen to fit text and budget when a run begins."""
TRAINING_SHARE = 0.95
"""Share of a budget in minutes that goes into training steps."""
REFERENCE = ModelConfig(cell="gru", num_layers=2, hidden_size=256)
STEEPNESS = {"bf16": 0.75, "bf16 in vectors": 0.82, "fp32": 0.87, "cuda": 0.25}
"""Time for a character grows with this power of the weights: large products are fast for their size. A GPU's own is of
one H100, 256 to 1,024 hidden units, B 32 and 64: a character's step takes it as long whatever it multiplies.
"""


@dataclass(frozen=True)
class Speed:
    """How fast a machine trains: seconds for a character in the reference model, and the steepness for others."""

    seconds: float = math.nan
    steepness: float = STEEPNESS["bf16"]


@dataclass(frozen=True)
class Sizes:
    """What was chosen, and why.

    Args:
        model: complete settings.
        training: complete settings.
        reasons: a line each for the size, dropout and weight decay, minibatch and rate; of what was chosen only.
    """

    model: ModelConfig
    training: TrainConfig
    reasons: tuple[str, ...]


def fit_sizes(
    corpus: Corpus, model: dict[str, Any], training: dict[str, Any], preset: str | None = None, processes: int = 1
) -> Sizes:  # fmt: skip
    """Settings for all that is not given, from a text and, for a budget in minutes, this machine's speed.

    Args:
        corpus: the text.
        model: settings of the model that are given, by name.
        training: settings of training that are given, by name.
        preset: "small", "medium" or "large", whatever the budget.
        processes: that share the work, each with as many threads as this one, or with a GPU.
    """
    from chargen.model.device import pick_device

    text, size = len(corpus.train), len(corpus.vocabulary)
    cores = processes * (threads() if pick_device(training.get("device", "auto")).type == "cpu" else 1)
    choose = partial(choose_sizes, text, size, model, training, unit=corpus.vocabulary.unit, preset=preset, cores=cores)
    largest = largest_minibatch(text, training, cores)
    is_open = largest != largest_minibatch(text, training)
    is_open |= not {"hidden_size", "dropout", "weight_decay"} <= {*model, *training}
    if not is_open or ("minutes" not in training and {"steps", "epochs"} & training.keys()):
        return choose()

    def speed(rows: int, length: int) -> Speed:
        mine = {"batch_size": max(1, rows // processes), "seq_length": length}
        measured = time_reference(size, training | mine)
        return replace(measured, seconds=measured.seconds / processes)

    sizes = choose(speed=speed(*largest))
    minibatch = sizes.training.batch_size, sizes.training.seq_length
    if minibatch != largest:
        # Another minibatch takes another time for each character, so the speed is measured again.
        sizes = choose(speed=speed(*minibatch), minibatch=minibatch)
    return sizes


def choose_sizes(
    text: int,
    vocabulary: int,
    model: dict[str, Any],
    training: dict[str, Any],
    *,
    unit: str = "character",
    preset: str | None = None,
    speed: Speed = Speed(),
    cores: int = 1,
    minibatch: tuple[int, int] | None = None,
) -> Sizes:
    """Settings for all that is not given.

    Args:
        text: ids of the training part.
        vocabulary: how many different ones there are.
        model: settings of the model that are given, by name.
        training: settings of training that are given, by name.
        unit: what the reasons call an id: "character" or "byte".
        preset: "small", "medium" or "large", whatever the budget.
        speed: what `time_reference` found; for a budget in minutes only, which is cut where it would do harm.
        cores: that share the work, of all processes.
        minibatch: rows and characters of a row, where they are chosen already.
    """
    model_config, train_config = make_settings(ModelConfig, model), make_settings(TrainConfig, training)
    free = not {"batch_size", "seq_length"} & training.keys()
    rows, length = minibatch or largest_minibatch(text, training)
    train_config = replace(train_config, batch_size=rows, seq_length=length)
    reach = partial(reachable_ids, training=train_config, text=text, vocabulary=vocabulary, speed=speed)
    if not {"tie_weights", "embedding_size"} & model.keys():
        model_config = replace(model_config, tie_weights=vocabulary >= MANY_CHARACTERS)
    why = ""
    if "hidden_size" not in model:
        model_config, why = choose_model(model_config, preset, reach, text, unit, train_config.teachers > 0)
    epochs = reach(model_config) / max(text, 1)  # of each network
    timed = train_config.epochs is None and train_config.steps is None
    wanted = min(MOST_STEPS, max(FEWEST_STEPS, STEPS_FOR_EACH * vocabulary))
    if free and not minibatch and train_config.steps is None and not math.isnan(epochs):
        # Cores that would only end the run sooner get no rows: fewer rows make more steps.
        useful = min(1.0, MAX_EPOCHS / epochs) if timed and epochs else 1.0
        most_ids = min(text * epochs * useful / wanted, text / MIN_WINDOWS)
        rows, length = fit_cores(rows, length, most_ids, cores * useful)
        train_config = replace(train_config, batch_size=rows, seq_length=length)
    ids_per_step = train_config.batch_size * train_config.seq_length
    most, enough = max(MAX_EPOCHS, math.ceil(wanted * ids_per_step / max(text, 1))), ""
    if epochs > most and timed:
        if networks := choose_networks(epochs / most, training):
            options: dict[str, Any] = {"unit": unit, "preset": preset, "speed": speed, "cores": cores}
            return choose_sizes(text, vocabulary, model, training | networks, **options, minibatch=minibatch)
        minutes = train_config.minutes or DEFAULT_MINUTES
        needed = max(0.1, minutes * most / epochs)
        used = f", some {needed:.1f} of {amount(minutes, 'minute')}" * (train_config.networks == 1)
        enough = f"{used}: more would only teach it by heart"
        epochs, train_config = most, replace(train_config, epochs=float(most * sum(train_config.parts)))
    pressure = epochs * count_weights(model_config) / max(text, 1)
    if "dropout" not in model:
        model_config = replace(model_config, dropout=choose_dropout(pressure))
    if "weight_decay" not in training:
        train_config = replace(train_config, weight_decay=choose_weight_decay(pressure))
    if "lr" not in training:
        train_config = replace(train_config, lr=peak_lr(model_config.hidden_size, ids_per_step if free else 0))
    sizes, chosen = (model_config, train_config), {"tie_weights", *CHOSEN_SETTINGS} - {*model, *training}
    reasons = [_shape_reason(model_config, chosen, why, amount(vocabulary, f"different {unit}"))]
    reasons += [
        _networks_reason(train_config),
        _holding_reason(*sizes, chosen, epochs, enough),
        _minibatch_reason(*sizes, chosen, text, unit, cores),
    ]
    reasons = [reason for reason in reasons if reason]
    writing = 1 + WRITING_TIME * train_config.teachers * (timed and train_config.epochs is None)
    steps = epochs * text / ids_per_step * sum(part / writing if part > 1 else part for part in train_config.parts)
    if reasons and math.isfinite(steps):
        exact = train_config.steps is not None and train_config.minutes is None
        reasons[-1] += f"; {describe_steps(steps, exact=exact)}"
    return Sizes(model_config, train_config, tuple(reasons))


def _shape_reason(model: ModelConfig, chosen: set[str], why: str, vocabulary: str) -> str:
    """Why there are so many hidden units, and why weights are tied; empty where both are given."""
    parts = [f"{amount(model.hidden_size, 'hidden unit')}: {why}"] * ("hidden_size" in chosen)
    parts += [f"tied weights: {vocabulary}"] * (model.tie_weights and "tie_weights" in chosen)
    return "; ".join(parts)


def _networks_reason(training: TrainConfig) -> str:
    """What several networks are for; empty where there is one."""
    if training.networks == 1:
        return ""
    if not training.teachers:
        return f"{amount(training.members, 'network')} that will predict together"
    kept = "one that is" if training.members == 1 else f"{training.members} that are"
    return (
        f"{amount(training.teachers, 'teacher')} that will write for {kept} kept, without dropout: more to learn from"
    )


def _holding_reason(model: ModelConfig, training: TrainConfig, chosen: set[str], epochs: float, enough: str) -> str:
    """What holds the model back from learning by heart, and how often it reads the text; empty where it is given."""
    held = [f"dropout {model.dropout:g}"] * ("dropout" in chosen)
    held += [f"weight decay {training.weight_decay:g}"] * ("weight_decay" in chosen)
    if not (held or enough):
        return ""
    readers = "" if training.networks == 1 else " by each"
    if epochs >= 1:
        read = f"the text will be read {epochs:,.1f} times{readers}"
    else:
        read = f"{100 * epochs:.2g} % of the text will be read{readers}"
    teachers = " of teachers" * (training.teachers > 0)
    return f"{', '.join(held) or 'budget'}{teachers}: {read}{enough}"


def _minibatch_reason(
    model: ModelConfig, training: TrainConfig, chosen: set[str], text: int, unit: str, cores: int
) -> str:
    """What a step learns from, and how much of that; empty where all of it is given."""
    if not {"lr", "batch_size", "seq_length"} & chosen:
        return ""
    minibatch = f"{amount(training.batch_size, 'row')} of {amount(training.seq_length, unit)}"
    fits = f"{amount(model.hidden_size, 'hidden unit')}, {amount(text, unit)}"
    if training.batch_size > DEFAULT_ROWS and "batch_size" in chosen:
        fits = f"{amount(cores, 'thread')}, {fits}"
    return f"{minibatch} at a peak rate of {training.lr:g}: {fits}"


def describe_steps(steps: float, *, exact: bool = False) -> str:
    """How many steps there will be; in two figures where that is an estimate."""
    steps = max(1, math.ceil(steps - 1e-9))
    if exact:
        return amount(steps, "step")
    unit = 10 ** max(0, len(str(steps)) - 2)
    return f"some {amount(round(steps / unit) * unit, 'step')}"


def reachable_ids(config: ModelConfig, training: TrainConfig, text: int, vocabulary: int, speed: Speed) -> float:
    """Ids that the budget trains, of each network: the smaller number, where there are two budgets."""
    counts: list[float] = []
    if training.steps is not None:
        counts.append(training.steps * training.batch_size * training.seq_length)
    if training.epochs is not None:
        counts.append(training.epochs * text)
    if not counts or (training.minutes is not None and speed.seconds > 0):
        slower = math.pow(count_weights(config, vocabulary) / count_weights(REFERENCE, vocabulary), speed.steepness)
        counts.append(60 * (training.minutes or DEFAULT_MINUTES) * TRAINING_SHARE / (speed.seconds * slower))
    return min(counts) / sum(training.parts)


def choose_networks(rounds: float, training: dict[str, Any]) -> dict[str, int]:
    """How many networks a budget is for that is longer than they can use; nothing where that is given or used.

    Args:
        rounds: how many times longer it is.
        training: settings of training that are given or chosen, by name.
    """
    if "members" in training or rounds < 2:
        return {}
    if training.get("batch_size") == 1:  # no row is left to teachers
        training = {"teachers": 0} | training
    if "teachers" not in training:
        return {"teachers": 1 if rounds < MANY_ROUNDS else MOST_TEACHERS}
    teachers = training["teachers"]
    members = (rounds * (teachers + TAUGHT_PARTS) - teachers) / TAUGHT_PARTS if teachers else rounds
    return {"members": min(MOST_MEMBERS, int(members))}


def choose_model(
    config: ModelConfig, preset: str | None, reach: Callable[[ModelConfig], float], text: int, unit: str,
    taught: bool = False,
) -> tuple[ModelConfig, str]:  # fmt: skip
    """The largest of the models that get far enough in the budget and do not learn the text by heart; and why.

    Args:
        config: the shape but for its hidden size.
        preset: a size instead.
        reach: how many ids the budget trains, of a model without teachers.
        text: ids of the training part.
        unit: what they are called.
        taught: whether it has teachers, which have its shape.
    """
    if preset:
        return replace(config, hidden_size=PRESETS[preset]), f"preset {preset}"
    per_weight = IDS_PER_WEIGHT / (TAUGHT_PARTS if taught else 1)
    most = max_weights(text) * (TAUGHT_WEIGHTS if taught else 1)
    models = [replace(config, hidden_size=size) for size in SIZES]
    in_time = ([model for model in models if reach(model) >= per_weight * count_weights(model)] or models[:1])[-1]
    by_text = ([model for model in models if count_weights(model) <= most] or models[:1])[-1]
    if count_weights(by_text) < count_weights(in_time):
        return by_text, f"the most that is good for {amount(text, unit)}, {count_weights(by_text):,} recurrent weights"
    weights = f"{count_weights(in_time):,} recurrent weights"
    return in_time, f"the largest that trains {IDS_PER_WEIGHT:g} {unit}s for each of its {weights}"


def count_weights(config: ModelConfig, vocabulary: int = 0) -> int:
    """Recurrent weights, and those of the output layer: what a character is multiplied by."""
    rows = GATES[config.cell] * config.hidden_size
    inputs = config.input_size + (config.num_layers - 1) * config.hidden_size
    recurrent = rows * (inputs + config.num_layers * config.hidden_size) * len(config.directions)
    return recurrent + vocabulary * config.hidden_size


def max_weights(text: int) -> float:
    """Recurrent weights, at most: larger models would learn a text by heart. They grow more slowly than the text."""
    return 26 * math.pow(text, 0.85)


def choose_dropout(pressure: float) -> float:
    """From none to three tenths: too much only slows learning down.

    Args:
        pressure: how often the text is read, times recurrent weights for each of its characters.
    """
    return round(min(0.3, max(0.0, 0.08 * math.log2(max(pressure, 1e-9) / 10))), 2)


def choose_weight_decay(pressure: float) -> float:
    """Three tenths where the text is read a few times, six and more where it could be learned by heart."""
    return round(min(1.0, max(0.3, 0.15 + 0.08 * math.log2(max(pressure, 1e-9)))), 2)


def peak_lr(hidden_size: int, ids_per_step: int = 0) -> float:
    """The peak learning rate: less for larger models, more for steps of more ids than there are by default.

    Args:
        hidden_size: hidden units.
        ids_per_step: rows times characters of a row, where they are chosen.
    """
    rise = min(MOST_RISE, max(1.0, ids_per_step / DEFAULT_IDS) ** 0.5)
    return float(f"{4e-3 * min(1.0, (384 / hidden_size) ** 0.5) * rise:.1e}")


def largest_minibatch(text: int, training: dict[str, Any], cores: int = 1) -> tuple[int, int]:
    """Rows and characters of a row: those that are given, or the most for which the text is long enough.

    Args:
        text: ids of the training part.
        training: settings of training that are given, by name.
        cores: that share the work.
    """
    config = make_settings(TrainConfig, training)
    minibatch = config.batch_size, config.seq_length
    if {"batch_size", "seq_length"} & training.keys():
        return minibatch
    minibatch = fit_minibatch(text, *minibatch)
    # More rows would make counted steps longer.
    return minibatch if config.steps else fit_cores(*minibatch, text / MIN_WINDOWS, cores)


def fit_minibatch(text: int, rows: int, length: int) -> tuple[int, int]:
    """As many rows and characters, or fewer where the text is too short for 4 windows in each row."""
    while length > 16 and text < MIN_WINDOWS * 4 * length:
        length //= 2
    while rows > 4 and text < MIN_WINDOWS * rows * length:
        rows //= 2
    return rows, length


def fit_cores(rows: int, length: int, ids: float, cores: float) -> tuple[int, int]:
    """More rows, where there are many cores, and windows as long as so many ids in a minibatch allow.

    The loss depends on how many ids there are in it, hardly on how many rows they are.

    Args:
        rows: the fewest.
        length: characters of the longest windows; they are halved.
        ids: in a minibatch, at most.
        cores: that share the work.
    """
    most = min(ROWS_OF_A_CORE * cores, ids / MIN_SEQ_LENGTH)
    while DEFAULT_ROWS <= rows <= most / 2:
        rows *= 2
    while length > MIN_SEQ_LENGTH and rows * length > ids:
        length //= 2
    return rows, length


def time_reference(vocabulary: int, training: dict[str, Any], seconds: float = 1.0) -> Speed:
    """How fast the reference model is trained: the trainer's own steps, on random text of as many characters.

    Args:
        vocabulary: how many different ones.
        training: settings of the machine and the minibatch, by name; others are ignored.
        seconds: how long to look.
    """
    from chargen.kernels import fast_bf16
    from chargen.kernels.cpu_features import amx
    from chargen.training.trainer import Trainer

    draws = np.random.default_rng(0).integers(0, max(2, vocabulary), 40_000)
    corpus = Corpus.from_text("".join(map(chr, draws + 0x20000)), valid_fraction=0.0)
    machine = {name: value for name, value in training.items() if name in TIMED_SETTINGS}
    config = TrainConfig(steps=10**6, eval_every=10**9, log_every=10**9, **machine)
    trainer = Trainer(corpus, REFERENCE, config)
    steps = trainer.run()
    for _ in range(1 + trainer.max_pending):  # the first compiles and warms
        next(steps)
    times: list[float] = []
    while sum(times) < seconds or (len(times) < 3 and sum(times) < 2 * seconds):  # slow ones eat the budget
        began = time.perf_counter()
        for _ in range(trainer.max_pending):  # one of these waits for them all
            next(steps)
        times.append((time.perf_counter() - began) / trainer.max_pending)
    # Other programs and a process that is young only ever make steps slower.
    seconds_per_id = float(np.percentile(times, 25)) / (config.batch_size * config.seq_length)
    kind = trainer.precision
    if trainer.device.type == "cuda":
        kind = "cuda"
    elif kind == "bf16" and trainer.device.type == "cpu" and fast_bf16() and not amx():
        kind = "bf16 in vectors"
    return Speed(seconds_per_id, STEEPNESS[kind])
