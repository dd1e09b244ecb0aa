"""The learning rate as a function of the step and of the share of the budget used."""

import math

from chargen.training.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, share: float) -> float:
    """The rate for `step`, counted from 0, when `share` (0 to 1) of the budget is used.

    A linear rise over `warmup` steps, times one, or times half a cosine from 1 to 0 (Loshchilov and Hutter, 2017).
    """
    rise = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "constant":
        return config.lr * rise
    return config.lr * rise * 0.5 * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0)))
