"""Logits -> one id. Pure functions of one row, so that a sample never depends on the samples beside it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError, amount, repr_short
from chargen.model.config import ModelConfig
from chargen.settings import check_settings, setting


@dataclass(frozen=True)
class SampleConfig:
    """How the next character is chosen. Filters apply in this order: bans, temperature, top-k, top-p, min-p."""

    temperature: float = setting(
        1.0, "0 writes the most likely character, 1 draws from the model; higher is wilder", low=0
    )
    top_k: int = setting(0, "keep the K most likely characters; 0 keeps all", low=0)
    top_p: float = setting(1.0, "keep the most likely characters that together reach this probability", low=0, high=1)
    min_p: float = setting(0.0, "drop characters below this share of the most likely one's probability", low=0, high=1)
    ban: str = setting("", "characters never to write")
    no_repeat: int = setting(0, "never complete a run of N characters already written; 0 is off", low=0)
    stop: tuple[str, ...] = setting(
        (), "stop after writing this text; may be given several times (a line end is $'\\n' in most shells)"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if "" in self.stop:
            raise SettingError("stop is '': an empty text ends nothing; leave it out", "stop")


WRITING = {"temperature": 0.8}
"""What `chargen sample` writes with by default, as measured in benchmarks/README.md; a Sampler draws from the model."""


def in_words(model: ModelConfig, vocabulary: Vocabulary, settings: dict[str, Any], config: SampleConfig) -> str:
    """A model and how text is drawn from it, for a person: of `config` what differs from a plain draw."""
    plain = asdict(SampleConfig())
    chosen = {name: value for name, value in asdict(config).items() if value != plain[name]}
    words = ", ".join(f"{name}={repr_short(value)}" for name, value in {**settings, **chosen}.items())
    shape = f"{model.cell.upper()} {model.num_layers} x {model.hidden_size}"
    return f"{shape}, {amount(len(vocabulary), vocabulary.unit)}, {words}"


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Log-probabilities (..., V) in nats."""
    values = logits.astype(np.float64)
    return values - log_sum(values)[..., None]


def log_sum(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The log of the sum of exponentials along an axis; -inf where all values are."""
    top = np.max(values, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        result: NDArray[np.float64] = np.log(np.exp(values - top).sum(axis=axis)) + np.squeeze(top, axis)
    return result


def probabilities(
    logits: NDArray[Any], allowed: NDArray[np.bool_] | None = None, config: SampleConfig | None = None
) -> NDArray[np.float64]:
    """The distribution (V,) a character is drawn from; always sums to 1 and has at least one candidate.

    Ties are broken towards the lower id. Temperature 0 is the limit: all on the most likely allowed character.
    Top-p is nucleus sampling (Holtzman et al., 2020); min-p as in Nguyen et al., 2024.

    Args:
        logits: (V,), finite or -inf.
        allowed: (V,) bool, at least one True; None allows all.
    """
    config = config or SampleConfig()
    scores = logits.astype(np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    best = int(np.argmax(scores))
    if config.temperature == 0:
        certain = np.zeros(len(scores))
        certain[best] = 1
        return certain
    with np.errstate(over="ignore"):  # a tiny temperature sends all others to -inf, its right limit
        weights = np.exp((scores - scores[best]) / config.temperature)
    if 0 < config.top_k < len(weights) or config.top_p < 1:
        order = np.argsort(-scores, kind="stable")  # weights tie at huge temperatures
        keep = len(order)
        if config.top_k:
            keep = min(keep, config.top_k)
        if config.top_p < 1:
            reached = np.cumsum(weights[order[:keep]])
            keep = min(keep, int(np.searchsorted(reached, config.top_p * reached[-1])) + 1)
        weights[order[keep:]] = 0
    if config.min_p > 0:
        weights[weights < config.min_p] = 0  # the most likely has weight 1
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def draw(distribution: NDArray[np.float64], uniform: float) -> int:
    """The id at which the distribution's running sum, in id order, first exceeds `uniform` in [0, 1)."""
    running = np.cumsum(distribution)
    return int(np.searchsorted(running, uniform * running[-1], side="right"))


def choose(
    logits: NDArray[Any], allowed: NDArray[np.bool_] | None, uniform: float, config: SampleConfig | None = None
) -> int:
    """The id that `uniform` in [0, 1) draws from logits (V,) under the rules of `config`."""
    return draw(probabilities(logits, allowed, config), uniform)
