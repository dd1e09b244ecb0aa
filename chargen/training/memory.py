"""How much memory a training run takes, before it starts; and how a command keeps what it has."""

import ctypes
import sys

from chargen.model.config import GATES, ModelConfig, parameter_count
from chargen.training.config import TrainConfig

LOGITS = 2**26
"""Bytes that the loss takes for logits at most: a block of them, and what is made of it (see `model.loss`)."""
TEXTS, LENGTH = 256, 1024
"""Texts that teachers write side by side, and their characters, at most."""
PROBABILITIES = 2**26
"""Of all places of such texts, at most, unless one window of each row has more."""


def estimate_memory(model_config: ModelConfig, vocabulary_size: int, config: TrainConfig) -> int:
    """About how many bytes training takes beside Python and torch themselves: weights and windows, no workspace."""
    weights = parameter_count(model_config, vocabulary_size)
    gates = GATES[model_config.cell]
    per_character = 2 * model_config.input_size + model_config.num_layers * model_config.hidden_size * (gates + 4)
    copies = 5  # weights, gradients, two moments, the best weights
    characters = config.batch_size * config.seq_length
    logits = min(16 * characters * vocabulary_size, LOGITS)
    written = 0
    if config.teachers:
        rows = config.batch_size - config.own_rows
        texts, windows = block_size(vocabulary_size, rows, config.seq_length)
        places = 2 * len(model_config.directions) * rows * texts * windows * config.seq_length  # of two blocks
        written = 2 * places * vocabulary_size + 4 * config.teachers * weights
    return 4 * (copies * weights + characters * per_character) + logits + written


def block_size(vocabulary_size: int, rows: int, seq_length: int) -> tuple[int, int]:
    """How much teachers write at a time.

    Args:
        vocabulary_size: V.
        rows: of a minibatch that read it, of all processes.
        seq_length: T.

    Returns:
        Texts for each row, and windows of T characters in a text.
    """
    places = PROBABILITIES // vocabulary_size
    windows = max(1, min(LENGTH, places // max(rows, 1)) // seq_length)
    return max(1, min(TEXTS, places // (windows * seq_length)) // max(rows, 1)), windows


def keep_memory() -> None:
    """Let this process use freed memory again instead of handing it back: fresh memory took a tenth of each step.

    For glibc only (mallopt(3)); elsewhere nothing happens. It is a setting of the whole process, so commands make it
    and the library does not.
    """
    trim_threshold, mmap_max = -1, -4
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt:
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 2**31 - 1)
