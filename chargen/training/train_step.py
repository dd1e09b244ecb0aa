"""One optimizer step: forward, loss, gradients, clip, check, update. What it changes is a `TrainState`."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from chargen.data.batches import Batch
from chargen.data.vocabulary import Vocabulary
from chargen.errors import SettingError, repr_short
from chargen.evaluation.loss import count_ids
from chargen.model.config import DIRECTIONS
from chargen.model.device import autocast, float32_products, to_device
from chargen.model.dropout import DropoutKey, Masks
from chargen.model.language_model import CharModel
from chargen.model.layers import State, detach
from chargen.model.loss import cross_entropy
from chargen.training.cloze_task import ClozeTask
from chargen.training.config import TrainConfig
from chargen.training.group import ALONE, Group
from chargen.training.loss_parts import Counts, LossPart, count_tensor, sum_parts

MAX_BAD_STEPS = 3
"""Steps in a row whose loss or gradient is not finite: then training has diverged."""
Hidden = dict[str, State]
"""The carried state of each direction; empty where there is none."""
LossFunction = Callable[[Tensor, nn.Linear, Tensor], Tensor]
"""Values before the output layer (B, T, H), that layer, targets (B, T) -> the mean loss, a scalar."""
Minibatch = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
"""Inputs and targets (B, T) on the model's device; on the host where states are fresh (B, T), None for nowhere; and
what teachers predict in the last B' rows (B', T, V), None for no rows.
"""


@dataclass(eq=False)
class TrainState:
    """What an optimizer step changes.

    Args:
        model: the network.
        optimizer: moves its weights.
        hidden: the carried state of each direction.
        step: optimizer steps made; those that were not finite count.
    """

    model: CharModel
    optimizer: torch.optim.Optimizer
    hidden: Hidden = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        self.weights = weights_by_loss(self.model)


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step found. On a GPU its figures may still be under way.

    Args:
        names: of its losses: "forward", "backward", "cloze".
        figures: (2 N,), its N losses in nats per id, then the norms of their gradients, on the device.
        counts: (N, 3) float64, `Counts` of each loss, of all processes.
        notices: those of the group, where there are other processes.
        lr: the learning rate.
    """

    names: tuple[str, ...]
    figures: Tensor
    counts: Tensor
    notices: Tensor | None = None
    lr: float = 0.0


class TrainStep:
    """Learns from a minibatch of each direction; each call is an optimizer step.

    Args:
        config: seed, clipping and resets.
        precision: of matrix products, "fp32" or "bf16".
        cloze: when the cloze layer learns, and from what; None where the model has none.
        loss: of one direction.
        vocabulary: says what ids stand for; None counts each as a character.
        group: the processes, each of which computes its rows; the gradient is that of all.
        on_device: the device decides whether an update is finite, so that the host need not wait for it.
    """

    def __init__(
        self,
        config: TrainConfig,
        precision: str = "fp32",
        cloze: ClozeTask | None = None,
        loss: LossFunction = cross_entropy,
        vocabulary: Vocabulary | None = None,
        group: Group = ALONE,
        on_device: bool = False,
    ) -> None:
        self.config = config
        self.precision = precision
        self.cloze = cloze
        self.loss = loss
        self.vocabulary = vocabulary
        self.group = group
        self.on_device = on_device

    def __call__(self, state: TrainState, batches: Mapping[str, Batch], lr: float) -> StepReport:
        """Make a step.

        Args:
            state: is changed.
            batches: by direction, the rows of this process.
            lr: the learning rate.
        """
        for weights in state.optimizer.param_groups:
            weights["lr"] = lr
        report = self.learn(state, self.minibatches(state, batches), self.dropout_key(state), self.counts(batches))
        state.step += 1
        return replace(report, lr=lr)

    def dropout_key(self, state: TrainState) -> DropoutKey:
        """The address of the step's dropout masks."""
        return DropoutKey(self.config.seed, state.step, self.group.share_of(self.config.batch_size).start)

    def counts(self, batches: Mapping[str, Batch]) -> dict[str, Counts]:
        """What the targets of each direction are."""
        return {direction: count_ids(batch.targets, self.vocabulary) for direction, batch in batches.items()}

    def minibatches(self, state: TrainState, batches: Mapping[str, Batch]) -> dict[str, Minibatch]:
        """The batches on the model's device."""
        device = state.model.device
        return {
            direction: (
                to_device(batch.inputs, device),
                to_device(batch.targets, device),
                torch.from_numpy(batch.fresh),
                None if batch.taught is None else to_device(batch.taught, device),
            )
            for direction, batch in batches.items()
        }

    def learn(
        self,
        state: TrainState,
        minibatches: Mapping[str, Minibatch],
        masks: Masks,
        counts: Mapping[str, Counts],
        cloze: bool = True,
    ) -> StepReport:
        """Forward, loss, gradients, their sum over all processes, clip and update.

        Args:
            state: is changed.
            minibatches: by direction.
            masks: where dropout masks come from.
            counts: of the targets, by direction.
            cloze: whether the cloze layer learns where its time has come.
        """
        try:
            parts, hidden = self.gradients(state, minibatches, masks, counts)
            if cloze and self.learns_cloze(state):
                parts["cloze"] = self._cloze_gradient(state)
            notices = sum_parts(parts.values(), self.group)
            norms = {name: self._clip_and_add(state, parts[name], name) for name in parts}
            if "cloze" in parts and not (math.isfinite(parts["cloze"].loss.item()) and norms["cloze"].isfinite()):
                del parts["cloze"], norms["cloze"]  # the layer may harm nothing but itself
                for weight in state.weights["cloze"]:
                    weight.grad = None
            figures = torch.stack([*(part.loss for part in parts.values()), *norms.values()]).detach()
            self._update(state, hidden, torch.isfinite(figures).all())
            all_counts = torch.stack([part.counts for part in parts.values()])
            return StepReport(tuple(parts), figures, all_counts, notices)
        finally:  # a step that fails leaves nothing to the next one
            state.optimizer.zero_grad(set_to_none=True)

    def gradients(
        self,
        state: TrainState,
        minibatches: Mapping[str, Minibatch],
        masks: Masks,
        counts: Mapping[str, Counts],
    ) -> tuple[dict[str, LossPart], Hidden]:
        """Forward, loss and gradient of each direction.

        Returns:
            Each direction's loss with its gradient, and the state after its text.
        """
        parts: dict[str, LossPart] = {}
        hidden: Hidden = {}
        for direction, (inputs, targets, fresh, taught) in minibatches.items():
            before = state.hidden.get(direction)
            with autocast(self.precision, state.model.device):
                values, hidden[direction] = state.model.read(inputs, before, masks, direction, fresh)
                loss = self._loss(values, state.model.output, targets, taught)
            if not isinstance(loss, Tensor) or loss.dim():
                what = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr_short(loss)
                raise SettingError(f"loss returned {what}: it must return a tensor of one number", "loss")
            parts[direction] = self._backward(state, loss, direction, counts[direction])
        return parts, hidden

    def _loss(self, values: Tensor, output: nn.Linear, targets: Tensor, taught: Tensor | None) -> Tensor:
        """The mean loss of the targets, and in rows that teachers have written of their probabilities."""
        if taught is None:
            return self.loss(values, output, targets)
        own = len(targets) - len(taught)
        loss = cross_entropy(values[own:], output, taught)
        if own:
            loss = loss + (self.loss(values[:own], output, targets[:own]) - loss) * (own / len(targets))
        return loss

    def learns_cloze(self, state: TrainState) -> bool:
        """Whether the cloze layer learns at this step."""
        return self.cloze is not None and self.cloze.due(state.step)

    def _cloze_gradient(self, state: TrainState) -> LossPart:
        """The cloze layer's loss and gradient, on the windows of this process."""
        assert self.cloze is not None
        with autocast(self.precision, state.model.device):
            loss, targets = self.cloze.loss(state.model, state.step)
        return self._backward(state, loss, "cloze", (targets, targets, 0))

    def _backward(self, state: TrainState, loss: Tensor, name: str, counts: Counts) -> LossPart:
        """Compute the gradient of a loss, and leave none in the weights."""
        weights = state.weights[name]
        with float32_products(self.precision, state.model.device):
            loss.backward()  # type: ignore[no-untyped-call]
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            weight.grad = None
        return LossPart(loss.detach(), gradients, count_tensor(counts))

    def _clip_and_add(self, state: TrainState, part: LossPart, name: str) -> Tensor:
        """Add a loss's gradient, clipped by its own norm, to what the weights have; return the norm before."""
        # Each loss is clipped alone, as if it were that of a model of its own; shared weights get the sum.
        weights = state.weights[name]
        before = [weight.grad for weight in weights]
        for weight, gradient in zip(weights, part.gradients, strict=True):
            weight.grad = gradient
        norm = clip_grad_norm_(weights, self.config.clip_norm or math.inf)
        for weight, gradient in zip(weights, before, strict=True):
            if gradient is not None:
                assert weight.grad is not None
                weight.grad += gradient
        return norm

    def _update(self, state: TrainState, hidden: Hidden, finite: Tensor) -> None:
        """Move the weights and carry the state on where all figures are finite; otherwise leave both as they were."""
        if not self.on_device:
            if finite:
                state.optimizer.step()
                state.hidden = {direction: detach(layers) for direction, layers in hidden.items()}
            return
        # Fused AdamW makes no step where this is not 0.
        state.optimizer.found_inf = 1 - finite.float()  # type: ignore[attr-defined]
        state.optimizer.step()
        for direction, layers in hidden.items():
            places = state.hidden.setdefault(direction, tuple(torch.zeros_like(layer) for layer in layers))
            for place, layer in zip(places, detach(layers), strict=True):
                place.copy_(torch.where(finite, layer, place))


Figures = tuple[dict[str, float], dict[str, float], dict[str, Counts]]
"""A step's losses, the norms of their gradients, and the counts of their targets, by name."""


def read_figures(reports: Iterable[StepReport], group: Group = ALONE) -> list[Figures]:
    """What steps have found; a GPU is waited for once.

    Args:
        reports: of some steps.
        group: the processes; learns what the last step's sum has carried.
    """
    reports = list(reports)
    if not reports:
        return []
    group.wait_for_device(reports[-1].figures.device)
    figures = iter(torch.cat([report.figures for report in reports]).tolist())
    counts = iter(torch.cat([report.counts for report in reports]).tolist())
    if reports[-1].notices is not None:
        group.read_notices(reports[-1].notices.tolist())
    read = []
    for report in reports:
        losses, norms = ({name: next(figures) for name in report.names} for _ in range(2))
        read.append((losses, norms, {name: tuple(map(int, next(counts))) for name in report.names}))
    return read  # type: ignore[return-value]


def weights_by_loss(model: CharModel) -> dict[str, list[Parameter]]:
    """The weights that each loss moves: all but the other direction's stack and the cloze layer, or that layer."""
    stacks = {direction: f"{direction}_layers" for direction in DIRECTIONS}
    named = [(name.split(".")[0], weight) for name, weight in model.named_parameters()]
    weights = {}
    for direction in model.config.directions:
        others = {"cloze", *stacks.values()} - {stacks[direction]}
        weights[direction] = [weight for module, weight in named if module not in others]
    return weights | {"cloze": [weight for module, weight in named if module == "cloze"]}


def adamw(model: CharModel, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019), fused where there is one.

    Biases are not decayed, nor is the embedding: a row learns only where its character is read, and would fade between.
    """
    table = model.embedding.weight
    decayed = [weight for weight in model.parameters() if weight.ndim > 1 and weight is not table]
    spared = [weight for weight in model.parameters() if weight.ndim == 1 or weight is table]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    kind = model.device.type
    return torch.optim.AdamW(groups, lr=config.lr, fused=kind in ("cpu", "cuda", "mps"), capturable=kind == "cuda")
