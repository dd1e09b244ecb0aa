"""Dynamic evaluation: a model that learns from each segment of a text after the segment is scored.

After Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of neural sequence models" (ICML 2018): a step against
the gradient of each segment, divided by the root mean square of such gradients, and a decay to the trained weights.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import Parameter

from chargen.data.reading import clean
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError
from chargen.evaluation.loss import Loss, in_reading_order, loss_of, sum_losses
from chargen.model.device import autocast, float32_products
from chargen.model.language_model import CharModel
from chargen.model.layers import State, detach
from chargen.model.loss import cross_entropy
from chargen.model.weights import weights_of
from chargen.storage.model_file import ModelFile, build_model

SEGMENT = 32
"""Ids that are scored before the weights change."""
FLOOR = 0.1
"""Added to each RMS gradient, as a share of their mean over all weights: rarely trained weights would jump."""
RATES, DECAYS = (3e-5, 1e-4, 3e-4, 1e-3), (2e-3, 0.0, 2e-2)
"""The learning rates and decays that `choose_rates` tries."""
TRIES = len(RATES) + len(DECAYS) - 1
"""Readings of the text that `choose_rates` takes."""


@dataclass(frozen=True)
class Rates:
    """The rates at which weights follow a text.

    Args:
        lr: learning rate, for gradients divided by the weight's RMS gradient.
        decay: the share of its distance to the trained weight that a weight with a mean RMS gradient loses per segment.
    """

    lr: float
    decay: float


ADAPT = Rates(1e-4, 0.0)


class DynamicEvaluator:
    """A copy of a model that reads a text, and learns from every segment after it is scored.

    Args:
        model: the model, which does not change.
        vocabulary: the model's vocabulary.
        rms: RMS gradients for each weight, as `rms_gradients` returns them; zeros for weights that this direction does
            not learn.
        rates: how fast weights follow the text.
        precision: "fp32" or "bf16".
        direction: "forward"; or "backward", which reads from the end, and trains that stack and what both share.
    """

    def __init__(
        self,
        model: CharModel,
        vocabulary: Vocabulary,
        rms: list[Tensor],
        rates: Rates,
        precision: str = "fp32",
        direction: str = "forward",
    ) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # cuDNN needs them in one block of memory, which a copy splits
        self.vocabulary, self.rates, self.precision, self.direction = vocabulary, rates, precision, direction
        self.weights = list(self.model.parameters())
        self.trained = [weight.detach().clone() for weight in self.weights]
        learned = [values for values in rms if values.any()]  # not the other stack, and not the cloze layer
        rms_sum = sum(float(values.double().sum()) for values in learned)
        mean = rms_sum / sum(values.numel() for values in learned) if learned else 1.0
        self.divisors = [values + FLOOR * mean for values in rms]
        self.decays = [(rates.decay * values / mean).clamp(max=1) for values in rms]

    def losses(self, ids: NDArray[Any]) -> Iterator[Loss]:
        """Score a text in one row, and learn from each segment after its loss is yielded.

        The first character read is context only and is not scored.

        Args:
            ids: (N,), in the order of the text.

        Yields:
            The loss of each segment.

        Raises:
            DataError: the text has fewer than two characters.
        """
        segments = _segments(self.model, self.vocabulary, ids, self.precision, self.direction)
        for targets, nats, gradients in segments:
            yield loss_of(targets, nats, self.vocabulary)
            self._learn(gradients)

    @torch.no_grad()
    def _learn(self, gradients: tuple[Tensor, ...]) -> None:
        parts = zip(self.weights, gradients, self.divisors, self.trained, self.decays, strict=True)
        for weight, gradient, divisor, trained, decay in parts:
            weight.addcdiv_(gradient, divisor, value=-self.rates.lr)
            if self.rates.decay:
                weight.lerp_(trained, decay)


def rms_gradients(
    model: CharModel,
    vocabulary: Vocabulary,
    ids: NDArray[Any],
    precision: str = "fp32",
    direction: str = "forward",
) -> list[Tensor]:
    """Compute the root mean square of the gradients of a text's segments.

    Args:
        model: the model.
        vocabulary: the model's vocabulary.
        ids: (N,), in the order of the text.
        precision: "fp32" or "bf16".
        direction: "forward" or "backward".

    Returns:
        A tensor for each weight of the model, in the order of its parameters.

    Raises:
        DataError: the text has fewer than two characters.
    """
    squares, number = [torch.zeros_like(weight) for weight in model.parameters()], 0
    for _, _, gradients in _segments(model, vocabulary, ids, precision, direction):
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
        number += 1
    return [(square / number).sqrt() for square in squares]


def choose_rates(
    model: CharModel,
    vocabulary: Vocabulary,
    ids: NDArray[Any],
    rms: list[Tensor],
    precision: str = "fp32",
    direction: str = "forward",
    report: Callable[[Rates, float], object] = lambda rates, loss: None,
) -> Rates:
    """Choose the rates that give the least loss: every lr with one decay, then every decay with the best lr.

    They must not be chosen on a text whose loss is reported.

    Args:
        model: the model.
        vocabulary: the model's vocabulary.
        ids: (N,), the text to choose them on, in its order.
        rms: RMS gradients for each weight, as `rms_gradients` returns them.
        precision: "fp32" or "bf16".
        direction: "forward" or "backward".
        report: called after each of TRIES readings of the text with its rates and its loss in nats per character.

    Raises:
        DataError: no rates give a finite loss, or the text has fewer than two characters.
    """
    losses: dict[Rates, float] = {}

    def try_rates(rates: Rates) -> None:
        evaluator = DynamicEvaluator(model, vocabulary, rms, rates, precision, direction)
        loss = sum_losses(evaluator.losses(ids)).mean
        losses[rates] = loss if math.isfinite(loss) else math.inf
        report(rates, loss)

    for lr in RATES:
        try_rates(Rates(lr, DECAYS[0]))
    best = min(losses, key=lambda rates: losses[rates])
    for decay in DECAYS[1:]:
        try_rates(Rates(best.lr, decay))
    best = min(losses, key=lambda rates: losses[rates])
    if losses[best] == math.inf:
        raise DataError("no rate of dynamic evaluation led to a finite loss on the text to choose it on")
    return best


def tuned_evaluator(
    model: CharModel,
    vocabulary: Vocabulary,
    tuning: str,
    *,
    precision: str = "fp32",
    direction: str = "forward",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> DynamicEvaluator:
    """Make an evaluator with the rates that are best on a text.

    Args:
        model: the model.
        vocabulary: the model's vocabulary.
        tuning: the text.
        precision: "fp32" or "bf16".
        direction: "forward" or "backward".
        progress: called after each reading of the text with how many are done, and how many there will be.

    Raises:
        DataError: no rates give a finite loss, or the text has fewer than two characters.
    """
    ids = vocabulary.encode(tuning, vocabulary.default_unknown)
    rms = rms_gradients(model, vocabulary, ids, precision, direction)
    done = itertools.count(1)
    rates = choose_rates(model, vocabulary, ids, rms, precision, direction, lambda *_: progress(next(done), TRIES))
    return DynamicEvaluator(model, vocabulary, rms, rates, precision, direction)


def adapt_model(file: ModelFile, text: str, times: int, rates: Rates = ADAPT, direction: str = "forward") -> ModelFile:
    """Let a copy of a model read a text and learn from it; RMS gradients are taken from the same text.

    Args:
        file: the model, which does not change.
        text: cleaned as the text that the model learned; unknown characters are left out where there is no unknown
            symbol.
        times: how often the text is read.
        rates: how fast weights follow the text.
        direction: "forward" or "backward".

    Returns:
        The model with its new weights.

    Raises:
        DataError: the text has fewer than two characters.
    """
    model, vocabulary = build_model(file), file.vocabulary
    ids = vocabulary.encode(clean(text, file.reading), vocabulary.default_unknown)
    rms = rms_gradients(model, vocabulary, ids, direction=direction)
    evaluator = DynamicEvaluator(model, vocabulary, rms, rates, direction=direction)
    for _ in range(times):
        for _ in evaluator.losses(ids):
            pass
    return replace(file, arrays=weights_of(evaluator.model))


def _segments(
    model: CharModel, vocabulary: Vocabulary, ids: NDArray[Any], precision: str, direction: str
) -> Iterator[tuple[NDArray[Any], float, tuple[Tensor, ...]]]:
    """Yield segments of a text, their nats, and the gradients of their mean loss; weights may change in between."""
    ids, first = in_reading_order(ids, vocabulary, direction, "learning from a text")
    row = torch.from_numpy(ids.astype(np.int64)).to(model.device)[None]
    weights: list[Parameter] = list(model.parameters())
    state: State | None = None
    if first > 1:
        with torch.no_grad(), autocast(precision, model.device):
            _, state = model.read(row[:, : first - 1], direction=direction)
    for begin in range(first, len(ids), SEGMENT):
        end = min(begin + SEGMENT, len(ids))
        with autocast(precision, model.device):
            values, new_state = model.read(row[:, begin - 1 : end - 1], state, direction=direction)
            loss = cross_entropy(values, model.output, row[:, begin:end])
        with float32_products(precision, model.device):
            gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        state = detach(new_state)
        yield ids[begin:end], loss.item() * (end - begin), gradients
