"""Logits -> one id. Pure functions of one row, so that a sample never depends on the samples beside it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.counting.context_tree import MAX_ORDER
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
    counts_max_copy: int = setting(
        MAX_ORDER - 1, "characters that a model's counts look back, at most; 0 leaves all to the network", low=0,
        high=MAX_ORDER - 1
    )  # fmt: skip
    ban: str = setting("", "characters never to write")
    no_repeat: int = setting(0, "never complete a run of N characters already written; 0 is off", low=0)
    stop: tuple[str, ...] = setting(
        (), "stop after writing this text; may be given several times (a line end is $'\\n' in most shells)"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if "" in self.stop:
            raise SettingError("stop is '': an empty text ends nothing; leave it out", "stop")


WRITING_DEFAULTS = {"temperature": 0.8, "counts_max_copy": 0}
"""The defaults of `chargen sample`, as measured in docs/pages/experiments.md; a Sampler draws from the model."""


def top_k(weights: Any, count: int) -> Any:
    """Keep the most likely ids.

    Args:
        weights: (..., V), from the most likely id on.
        count: how many are kept.

    Returns:
        The weights, 0 for what is dropped.
    """
    kept = weights + 0
    kept[..., count:] = 0
    return kept


def top_p(weights: Any, share: float) -> Any:
    """Keep the most likely ids that together reach a share: nucleus sampling (Holtzman et al., 2020).

    Args:
        weights: (..., V), from the most likely id on.
        share: of the sum; the most likely id is always kept.

    Returns:
        The weights, 0 for what is dropped.
    """
    cumulated, kept = weights.cumsum(-1), weights + 0
    kept[..., 1:] *= cumulated[..., :-1] < share * cumulated[..., -1:]
    return kept


def min_p(weights: Any, share: float) -> Any:
    """Drop ids below a share of the most likely one's probability (Nguyen et al., 2024).

    Args:
        weights: (..., V), in any order; the most likely id has 1.
        share: of the largest.

    Returns:
        The weights, 0 for what is dropped.
    """
    return weights * (weights >= share)


FILTERS: dict[str, Callable[[Any, Any], Any]] = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
"""Filters by the field of `SampleConfig` that sets them, in the order in which they apply: functions of the weights and
the setting, which use only what NumPy's arrays and torch's tensors have in common. Each has a compiled twin of the same
name in `kernels/filters.py`, whose `apply_filters` has the same order."""
RANKED = {"top_k", "top_p"}
"""Filters whose weights must come from the most likely id on."""
_DEFAULTS = {field.name: field.default for field in fields(SampleConfig)}


def active_filters(config: SampleConfig) -> dict[str, Any]:
    """Find the filters that a config asks for.

    Args:
        config: how an id is chosen.

    Returns:
        Their settings by name, in the order of `FILTERS`; a filter whose field has its default is off.
    """
    settings = {name: getattr(config, name) for name in FILTERS}
    return {name: min(value, 2**53) for name, value in settings.items() if value != _DEFAULTS[name]}


def need_ranks(active: dict[str, Any]) -> bool:
    """Whether any of some filters needs its weights from the most likely id on; the others do not care."""
    return not RANKED.isdisjoint(active)


def apply_filters(weights: Any, active: dict[str, Any]) -> Any:
    """Apply filters one after the other.

    Args:
        weights: (..., V), of NumPy or torch; from the most likely id on where `need_ranks` says so.
        active: settings by name, from `active_filters`.

    Returns:
        The weights, 0 for what is dropped.
    """
    for name, value in active.items():
        weights = FILTERS[name](weights, value)
    return weights


def summarize(model: ModelConfig, vocabulary: Vocabulary, own: dict[str, Any], config: SampleConfig) -> str:
    """Describe in one line a model and how text is drawn from it.

    Args:
        model: the model's shape.
        vocabulary: the model's.
        own: the caller's own settings by name, shown first.
        config: how characters are chosen; what differs from a plain draw is shown.

    Returns:
        The line.
    """
    changed = {name: value for name, value in asdict(config).items() if value != _DEFAULTS[name]}
    values = ", ".join(f"{name}={repr_short(value)}" for name, value in {**own, **changed}.items())
    shape = f"{model.cell.upper()} {model.num_layers} x {model.hidden_size}"
    return f"{shape}, {amount(len(vocabulary), vocabulary.unit)}, {values}"


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """The log-probabilities of logits.

    Args:
        logits: (..., V).

    Returns:
        (..., V) in float64, in nats.
    """
    values = logits.astype(np.float64)
    return values - log_sum_exp(values)[..., None]


def log_sum_exp(values: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
    """The log of the sum of exponentials along an axis.

    Args:
        values: any shape.
        axis: the axis that is summed over.

    Returns:
        One dimension fewer; -inf where all values are -inf.
    """
    largest = np.max(values, axis=axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        result: NDArray[np.float64] = np.log(np.exp(values - largest).sum(axis=axis)) + np.squeeze(largest, axis)
    return result


def probabilities(
    logits: NDArray[Any], allowed: NDArray[np.bool_] | None = None, config: SampleConfig | None = None
) -> NDArray[np.float64]:
    """The distribution (V,) a character is drawn from; always sums to 1 and has at least one candidate.

    Ties are broken towards the lower id. Temperature 0 is the limit: all on the most likely allowed character.

    Args:
        logits: (V,), finite or -inf.
        allowed: (V,) bool, at least one True; None allows all.
        config: temperature and filters; by default a plain draw.

    Returns:
        (V,) in float64.
    """
    weights = _weights(logits, allowed, config or SampleConfig())
    result: NDArray[np.float64] = weights / weights.sum()
    return result


def _weights(logits: NDArray[Any], allowed: NDArray[np.bool_] | None, config: SampleConfig) -> NDArray[np.float64]:
    """The distribution (V,) up to a factor: the most likely id has weight 1."""
    scores = logits.astype(np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    best = int(np.argmax(scores))
    if config.temperature == 0:
        one_hot = np.zeros(len(scores))
        one_hot[best] = 1
        return one_hot
    with np.errstate(over="ignore"):  # a tiny temperature sends all others to -inf, its right limit
        weights: NDArray[np.float64] = np.exp((scores - scores[best]) / config.temperature)
    if active := active_filters(config):
        # Not by the weights, which tie at huge temperatures.
        order = np.argsort(-scores, kind="stable") if need_ranks(active) else slice(None)
        weights[order] = apply_filters(weights[order], active)
    return weights


def draw(distribution: NDArray[np.float64], uniform: float) -> int:
    """Draw an id by inverse CDF: the first at which the running sum, in id order, exceeds the uniform.

    Args:
        distribution: (V,), probabilities or weights.
        uniform: from 0 to below 1.

    Returns:
        The id.
    """
    cumulated = np.cumsum(distribution)
    return int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))


def choose(
    logits: NDArray[Any], allowed: NDArray[np.bool_] | None, uniform: float, config: SampleConfig | None = None
) -> int:
    """Draw an id from logits. Weights are not divided by their sum: all engines round alike, also where ids tie.

    Args:
        logits: (V,), finite or -inf.
        allowed: (V,) bool, at least one True; None allows all.
        uniform: from 0 to below 1.
        config: temperature and filters; by default a plain draw.

    Returns:
        The id.
    """
    return draw(_weights(logits, allowed, config or SampleConfig()), uniform)
