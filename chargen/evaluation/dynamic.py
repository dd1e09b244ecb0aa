"""Dynamic evaluation: a model that learns from each stretch of a text once it has been scored.

After Krause, Kahembwe, Murray and Renals, "Dynamic evaluation of neural sequence models" (ICML 2018): a step against
the gradient of each segment, scaled by how large gradients usually are, and a pull back to the trained weights.
"""

import copy
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
from chargen.errors import DataError, amount
from chargen.evaluation.loss import Loss, first_scored, folding_nats, total
from chargen.model.device import autocast, float32_products
from chargen.model.language_model import CharModel
from chargen.model.layers import State, detach
from chargen.model.loss import cross_entropy
from chargen.model.weights import weights_of
from chargen.storage.model_file import ModelFile, build_model

SEGMENT = 32
"""Ids that are scored before each step."""
FLOOR = 0.1
"""Least size of a weight's usual gradient, as a share of the mean over all weights: rare ones would jump."""
RATES, DECAYS = (3e-5, 1e-4, 3e-4, 1e-3), (2e-3, 0.0, 2e-2)
TRIES = len(RATES) + len(DECAYS) - 1


@dataclass(frozen=True)
class Rates:
    """How fast weights follow a text.

    Args:
        lr: of a step, for a gradient in units of the weight's usual one.
        decay: share of the way back to the trained weights at each step, for a weight with gradients of mean size.
    """

    lr: float
    decay: float


ADAPT = Rates(1e-4, 0.0)


class DynamicEvaluator:
    """A copy of a model that reads a text, and learns from every segment after it is scored.

    Args:
        model: stays as it is.
        usual: what `usual_gradients` found, for each weight; zeros for those that this direction does not learn.
        direction: "backward" reads from the end; that stack learns, and what both share.
    """

    def __init__(
        self,
        model: CharModel,
        vocabulary: Vocabulary,
        usual: list[Tensor],
        rates: Rates,
        precision: str = "fp32",
        direction: str = "forward",
    ) -> None:
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, nn.RNNBase):
                module.flatten_parameters()  # a copy's weights no longer lie in one stretch, as a GPU wants them
        self.vocabulary, self.rates, self.precision, self.direction = vocabulary, rates, precision, direction
        self.weights = list(self.model.parameters())
        self.trained = [weight.detach().clone() for weight in self.weights]
        learned = [size for size in usual if size.any()]  # not the other stack, and not the cloze layer
        total_size = sum(float(size.double().sum()) for size in learned)
        mean = total_size / sum(size.numel() for size in learned) if learned else 1.0
        self.divisors = [size + FLOOR * mean for size in usual]
        self.pulls = [(rates.decay * size / mean).clamp(max=1) for size in usual]

    def losses(self, ids: NDArray[Any]) -> Iterator[Loss]:
        """Score a text (N,) from where reading begins, in one row: the loss of each segment, before it is learned.

        The first character read is left out, as in `loss_windows`.
        """
        found = _segments(self.model, self.vocabulary, ids, self.precision, self.direction)
        for targets, nats, gradients in found:
            characters = self.vocabulary.count_characters(targets)
            yield Loss(nats + folding_nats(self.vocabulary, targets), characters, targets.size)
            self._learn(gradients)

    @torch.no_grad()
    def _learn(self, gradients: tuple[Tensor, ...]) -> None:
        parts = zip(self.weights, gradients, self.divisors, self.trained, self.pulls, strict=True)
        for weight, gradient, divisor, trained, pull in parts:
            weight.addcdiv_(gradient, divisor, value=-self.rates.lr)
            if self.rates.decay:
                weight.lerp_(trained, pull)


def rms_gradients(
    model: CharModel,
    vocabulary: Vocabulary,
    ids: NDArray[Any],
    precision: str = "fp32",
    direction: str = "forward",
) -> list[Tensor]:
    """Root of the mean square of the gradients of a text's segments, for each weight."""
    sums, number = [torch.zeros_like(weight) for weight in model.parameters()], 0
    for _, _, gradients in _segments(model, vocabulary, ids, precision, direction):
        for one, gradient in zip(sums, gradients, strict=True):
            one.addcmul_(gradient, gradient)
        number += 1
    return [(one / number).sqrt() for one in sums]


def choose_rates(
    model: CharModel,
    vocabulary: Vocabulary,
    ids: NDArray[Any],
    usual: list[Tensor],
    precision: str = "fp32",
    direction: str = "forward",
    tried: Callable[[Rates, float], object] = lambda rates, loss: None,
) -> Rates:
    """The rates that lead to the least loss: every lr with one decay, then every decay with the best lr.

    Not to be chosen on a text that is reported.

    Args:
        tried: called after each of TRIES readings of the text with what it led to, in nats a character.

    Raises DataError where none leads to a finite loss.
    """
    found: dict[Rates, float] = {}

    def read(rates: Rates) -> None:
        reader = DynamicEvaluator(model, vocabulary, usual, rates, precision, direction)
        loss = total(reader.losses(ids)).mean
        found[rates] = loss if math.isfinite(loss) else math.inf
        tried(rates, loss)

    for lr in RATES:
        read(Rates(lr, DECAYS[0]))
    best = min(found, key=lambda rates: found[rates])
    for decay in DECAYS[1:]:
        read(Rates(best.lr, decay))
    best = min(found, key=lambda rates: found[rates])
    if found[best] == math.inf:
        raise DataError("no rate of dynamic evaluation led to a finite loss on the text to choose it on")
    return best


def adapted(file: ModelFile, text: str, times: int, rates: Rates = ADAPT, direction: str = "forward") -> ModelFile:
    """A model that has read a text and learned from it, so many times over; unknown characters are passed over.

    How large its gradients usually are is taken from the same text. Raises DataError for a text of fewer than two
    characters.
    """
    model, vocabulary = build_model(file), file.vocabulary
    ids = vocabulary.encode(clean(text, file.reading), "skip" if vocabulary.unknown_id is None else "replace")
    usual = rms_gradients(model, vocabulary, ids, direction=direction)
    reader = DynamicEvaluator(model, vocabulary, usual, rates, direction=direction)
    for _ in range(times):
        for _ in reader.losses(ids):
            pass
    return replace(file, arrays=weights_of(reader.model))


def _segments(
    model: CharModel, vocabulary: Vocabulary, ids: NDArray[Any], precision: str, direction: str
) -> Iterator[tuple[NDArray[Any], float, tuple[Tensor, ...]]]:
    """Segments of a text with their nats, and the gradients of their means. Weights may change between two of them."""
    backward = direction == "backward"
    ids = ids[::-1] if backward else ids
    first = first_scored(ids, vocabulary.byte_mode, backward)
    if len(ids) <= first:
        raise DataError(
            f"learning from a text needs at least 2 characters, found {amount(len(ids), 'id')}; give more text"
        )
    given = torch.from_numpy(ids.astype(np.int64)).to(model.device)[None]
    weights: list[Parameter] = list(model.parameters())
    state: State | None = None
    if first > 1:
        with torch.no_grad(), autocast(precision, model.device):
            _, state = model.read(given[:, : first - 1], direction=direction)
    for begin in range(first, len(ids), SEGMENT):
        end = min(begin + SEGMENT, len(ids))
        with autocast(precision, model.device):
            values, after = model.read(given[:, begin - 1 : end - 1], state, direction=direction)
            loss = cross_entropy(values, model.output, given[:, begin:end])
        with float32_products(precision, model.device):
            gradients = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
        state = detach(after)
        yield ids[begin:end], loss.item() * (end - begin), gradients
