"""Dynamic evaluation: a model that learns from each segment of a text after the segment is scored.

After Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of neural sequence models" (ICML 2018): a step against
the gradient of each segment, divided by the root mean square of such gradients, and a decay to the trained weights.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chargen.counting.mixture import Mixture
from chargen.counting.recorder import Recorder
from chargen.data.borders import as_targets
from chargen.data.reading import clean, mark_text
from chargen.data.reading_report import ReadingReport
from chargen.data.vocabulary import Vocabulary
from chargen.errors import DataError
from chargen.evaluation.loss import Loss, in_reading_order, loss_of, sum_losses
from chargen.kernels import available
from chargen.model.arguments import is_host_memory
from chargen.model.device import autocast, float32_products
from chargen.model.language_model import CharModel
from chargen.model.layers import State, detach, zero_state
from chargen.model.loss import cross_entropy, predict_in_blocks
from chargen.model.weights import weights_of
from chargen.storage.model_file import ModelFile, build_networks

if TYPE_CHECKING:
    from chargen.model.thin_gradients import ThinGradients

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


Floats = NDArray[np.float64]
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
        mixture: counts of this direction, which predict beside the network and stay as they are; or who remembers what
            it predicts.
        members: evaluators of other networks, which learn by themselves; their probabilities are averaged.
    """

    def __init__(
        self,
        model: CharModel,
        vocabulary: Vocabulary,
        rms: list[Tensor],
        rates: Rates,
        precision: str = "fp32",
        direction: str = "forward",
        mixture: Mixture | Recorder | None = None,
        members: "Sequence[DynamicEvaluator]" = (),
    ) -> None:
        self.mixture, self.members = mixture, members
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # cuDNN needs them in one block of memory, which a copy splits
        self.vocabulary, self.rates, self.precision, self.direction = vocabulary, rates, precision, direction
        self.weights: list[Tensor] = list(self.model.parameters())
        self.trained = [weight.detach().clone() for weight in self.weights]
        learned = [values for values in rms if values.any()]  # not the other stack, and not the cloze layer
        rms_sum = sum(float(values.cpu().double().sum()) for values in learned)
        mean = rms_sum / sum(values.numel() for values in learned) if learned else 1.0
        self.rms, self.rule = rms, (rates.lr, FLOOR * mean, rates.decay / mean)

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
        text, _ = in_reading_order(ids, self.vocabulary, self.direction, "scoring")
        for segments in zip(*(evaluator._read(ids) for evaluator in (self, *self.members)), strict=True):
            first, targets = segments[0].first, segments[0].ids
            summed = torch.logsumexp(torch.stack([segment.log_probs for segment in segments]), 0)
            log_probs = (summed - math.log(len(segments))).numpy()
            places = np.arange(len(targets))
            nats = -log_probs[places, as_targets(targets.astype(np.int64), self.model.first_begin)].astype(np.float64)
            costs = self.mixture.nats(text, first + places, log_probs) if self.mixture else nats
            loss = loss_of(targets, float(costs.sum()), self.vocabulary)
            ends = targets >= self.model.first_begin
            network_nats = loss.nats + float((nats - costs).sum())
            yield replace(loss, end_nats=float(costs[ends].sum()), network_nats=network_nats)

    def _read(self, ids: NDArray[Any]) -> "Iterator[_Segment]":
        """Read a text, and learn from each segment when the next one is asked for."""
        for segment in _segments(self.model, self.vocabulary, ids, self.precision, self.direction):
            yield segment
            segment.gradients.teach(self.weights, self.rule, self.rms, self.trained)


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
    for segment in _segments(model, vocabulary, ids, precision, direction):
        segment.gradients.add_squares(squares)
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
    networks: Sequence[CharModel],
    vocabulary: Vocabulary,
    tuning: str,
    *,
    mixture: Mixture | Recorder | None = None,
    precision: str = "fp32",
    direction: str = "forward",
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> DynamicEvaluator:
    """Make an evaluator with the rates that are best for the first network on a text.

    Args:
        networks: of the model.
        vocabulary: the model's vocabulary.
        tuning: the text.
        mixture: counts of this direction; the rates do not depend on them, since they may know the text by heart.
        precision: "fp32" or "bf16".
        direction: "forward" or "backward".
        progress: called after each reading of the text with how many are done, and how many there will be.

    Raises:
        DataError: no rates give a finite loss, or the text has fewer than two characters.
    """
    ids = vocabulary.encode(tuning, vocabulary.default_unknown)
    rms = [rms_gradients(network, vocabulary, ids, precision, direction) for network in networks]
    done, (first, *others) = itertools.count(1), networks
    rates = choose_rates(first, vocabulary, ids, rms[0], precision, direction, lambda *_: progress(next(done), TRIES))
    members = [
        DynamicEvaluator(network, vocabulary, own, rates, precision, direction)
        for network, own in zip(others, rms[1:], strict=True)
    ]
    return DynamicEvaluator(first, vocabulary, rms[0], rates, precision, direction, mixture, members)


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
    vocabulary = file.vocabulary
    if vocabulary.records:
        text = mark_text(text, file.reading, ReadingReport.of_model(vocabulary.labels))
    else:
        text = clean(text, file.reading)
    ids = vocabulary.encode(text, vocabulary.default_unknown)
    networks = []
    for model in build_networks(file):
        rms = rms_gradients(model, vocabulary, ids, direction=direction)
        evaluator = DynamicEvaluator(model, vocabulary, rms, rates, direction=direction)
        for _ in range(times):
            for _ in evaluator.losses(ids):
                pass
        networks.append(weights_of(evaluator.model))
    return file.with_networks(networks)


class _Segment(NamedTuple):
    """Some ids of a text, read.

    Args:
        first: the place of the first one.
        ids: (n,).
        log_probs: (n, V), what was predicted, on the host.
        gradients: of the mean loss.
    """

    first: int
    ids: NDArray[Any]
    log_probs: Tensor
    gradients: "WholeGradients | ThinGradients"


class WholeGradients:
    """Gradients on any device, one for each weight; None for those that this direction does not learn.

    Args:
        gradients: of each weight.
    """

    def __init__(self, gradients: tuple[Tensor | None, ...]) -> None:
        self.gradients = gradients

    @torch.no_grad()
    def add_squares(self, squares: list[Tensor]) -> None:
        """Add the squares of all gradients.

        Args:
            squares: of each weight, to which they are added.
        """
        for square, gradient in zip(squares, self.gradients, strict=True):
            if gradient is not None:
                square.addcmul_(gradient, gradient)

    @torch.no_grad()
    def teach(
        self, weights: list[Tensor], rule: tuple[float, float, float], rms: list[Tensor], trained: list[Tensor]
    ) -> None:
        """Change weights by their gradients, then move them a part of the way back to where they were.

        Args:
            weights: the weights.
            rule: the learning rate; what is added to RMS gradients that a gradient is divided by; and the part of the
                way back for each unit of the RMS gradient, of which at most all is gone.
            rms: the RMS gradients of each weight.
            trained: each weight as it was.
        """
        lr, floor, decay = rule
        for weight, gradient, size, goal in zip(weights, self.gradients, rms, trained, strict=True):
            if gradient is not None:
                weight.addcdiv_(gradient, size + floor, value=-lr)
                if decay:
                    weight.lerp_(goal, (decay * size).clamp(max=1))


def _segments(
    model: CharModel, vocabulary: Vocabulary, ids: NDArray[Any], precision: str, direction: str
) -> Iterator[_Segment]:
    """Yield segments of a text as they are read, with gradients of their mean loss; weights may change in between."""
    ids, first = in_reading_order(ids, vocabulary, direction, "learning from a text")
    row = torch.from_numpy(ids.astype(np.int64)).to(model.device)[None]
    state = zero_state(model.config, 1, model.device)
    if first > 1:
        with torch.no_grad(), autocast(precision, model.device):
            _, state = model.read(row[:, : first - 1], direction=direction)
    weights: list[Tensor] = list(model.parameters())
    # The kernels of one row know no fresh states inside a segment.
    if precision == "fp32" and available() and not model.config.begin_symbols and all(map(_fits_kernels, weights)):
        from chargen.model import thin_gradients

        differentiate: Callable[..., tuple[Tensor, State, WholeGradients | ThinGradients]] = (
            thin_gradients.differentiate
        )
    else:
        differentiate = partial(_differentiate_by_torch, precision)
    for begin in range(first, len(ids), SEGMENT):
        end = min(begin + SEGMENT, len(ids))
        inputs, targets = row[:, begin - 1 : end - 1], row[:, begin:end].clamp(max=model.first_begin)
        log_probs, state, gradients = differentiate(model, weights, inputs, targets, state, direction)
        yield _Segment(begin, ids[begin:end], log_probs.cpu(), gradients)


def _fits_kernels(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and is_host_memory(weight) and weight.is_contiguous()


def _differentiate_by_torch(
    precision: str,
    model: CharModel,
    weights: list[Tensor],
    ids: Tensor,
    targets: Tensor,
    state: State,
    direction: str,
) -> tuple[Tensor, State, WholeGradients]:
    """Compute what `thin_gradients.differentiate` does, in any precision, on any device, with whole gradients."""
    with autocast(precision, model.device):
        values, new_state = model.read(ids, state, direction=direction)
        loss = cross_entropy(values, model.output, targets)
        log_probs = torch.cat([block for _, block in predict_in_blocks(values.detach()[0], model.output)])
    with float32_products(precision, model.device):
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return log_probs, detach(new_state), WholeGradients(gradients)
