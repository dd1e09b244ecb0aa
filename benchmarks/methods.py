"""Methods that were tried for better text, each as a network and an optimizer that the trainer is given.

None of them is in the package but weight decay, dropout, tied weights and the spared embedding; `benchmarks.ablation`
compares them, and `docs/pages/experiments.md` has what came out.
"""

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chargen import CharModel, Corpus, ModelConfig, TrainConfig, Trainer
from chargen.evaluation.loss import evaluate_ids
from chargen.model.dropout import DropoutKey, drop
from chargen.model.layers import State, run_layer, zero_state
from chargen.training.train_step import adamw


class Plain(CharModel):
    """Nothing changed."""

    settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Of the model, where they are other ones."""

    def optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        return adamw(self, config)

    def losses(self, trainer: Trainer) -> dict[str, float]:
        """Of the last weights on the whole validation part, by what distinguishes them."""
        return {"": trainer.summary["valid_loss"]}


class Changed(Plain):
    """What the model does, in pieces that a method may replace."""

    def __init__(self, config: ModelConfig, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__(config, vocabulary_size, seed)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.add()

    def add(self) -> None:
        """Give the model what else it needs."""

    def first(self, rows: int) -> State:
        return zero_state(self.config, rows, self.device)

    def embed(self, ids: Tensor, masks: DropoutKey | None) -> Tensor:
        return self.embedding(ids)

    def drop(self, values: Tensor, masks: DropoutKey | None, layer: int) -> Tensor:
        return drop(values, self.config.dropout, masks, layer)

    def layer(self, number: int, values: Tensor, state: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a layer makes of values (B, T, F), and its state after; the state is zero where it is fresh (B, T)."""
        return run_layer(self.forward_layers[number], values, state, fresh)

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        """What goes on, from what was before a layer and what came out of it."""
        return values

    def read(
        self, ids: Tensor, state: State | None = None, masks: DropoutKey | None = None, direction: str = "forward",
        fresh: Tensor | None = None,
    ) -> tuple[Tensor, State]:  # fmt: skip
        state = self.first(len(ids)) if state is None else state
        values, carried = self.embed(ids, masks), []
        for layer in range(self.config.num_layers):
            entering = self.drop(values, masks, layer) if layer else values
            outputs, after = self.layer(layer, entering, state[layer], fresh)
            values = self.join(layer, values, outputs)
            carried.append(after)
        return self.drop(values, masks, self.config.num_layers), tuple(carried)


class LayerNorm(Changed):
    """Ba, Kiros and Hinton, 2016: on the output of each layer."""

    def add(self) -> None:
        size = self.config.hidden_size
        self.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(self.config.num_layers))

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        return self.norms[layer](values)


class Residual(Changed):
    """He et al., 2015: a layer adds to what it reads, from the second on."""

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        return before + values if layer else values


class Deeper(Residual):
    """Twice as many layers, residual connections."""

    settings = MappingProxyType({"num_layers": 4})


class LockedDropout(Changed):
    """Gal and Ghahramani, 2016: one mask for a whole window."""

    def drop(self, values: Tensor, masks: DropoutKey | None, layer: int) -> Tensor:
        rate = self.config.dropout
        if masks is None or not rate:
            return values
        kept = torch.rand(len(values), 1, values.shape[2], generator=self.generator) >= rate
        return values * kept / (1 - rate)


class DroppedEmbeddings(Changed):
    """Gal and Ghahramani, 2016: a share of the characters is missing from a minibatch."""

    share = 0.05

    def embed(self, ids: Tensor, masks: DropoutKey | None) -> Tensor:
        table = self.embedding.weight
        if masks is not None:
            kept = torch.rand(len(table), 1, generator=self.generator) >= self.share
            table = table * kept / (1 - self.share)
        return functional.embedding(ids, table)


class UnknownSymbols(Changed):
    """Characters that are read as one unknown symbol, with a row of its own."""

    share = 0.02

    def add(self) -> None:
        self.unknown = nn.Parameter(torch.randn(self.config.input_size))

    def embed(self, ids: Tensor, masks: DropoutKey | None) -> Tensor:
        values = self.embedding(ids)
        if masks is None:
            return values
        unknown = torch.rand(*ids.shape, 1, generator=self.generator) < self.share
        return torch.where(unknown, self.unknown, values)


class LearnedStart(Changed):
    """The state of an unknown context is learned."""

    def add(self) -> None:
        config = self.config
        self.start = nn.ParameterList(torch.zeros(config.state_size) for _ in range(config.num_layers))

    def first(self, rows: int) -> State:
        return tuple(layer.expand(rows, -1) for layer in self.start)

    def layer(self, number: int, values: Tensor, state: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor]:
        cuts = [] if fresh is None else fresh.any(0).nonzero().flatten().tolist()
        outputs = []
        for begin, end in itertools.pairwise(sorted({0, *cuts, values.shape[1]})):
            if fresh is not None:
                state = torch.where(fresh[:, begin, None], self.start[number], state)
            output, state = super().layer(number, values[:, begin:end], state, None)
            outputs.append(output)
        return torch.cat(outputs, 1), state


class DropConnect(Changed):
    """Wan et al., 2013, as Merity et al., 2017: recurrent weights that are missing for a step."""

    share = 0.1

    def add(self) -> None:
        self.whole: dict[nn.Parameter, tuple[Tensor, Tensor]] = {}

    def optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        optimizer = super().optimizer(config)
        optimizer.register_step_pre_hook(lambda *arguments: self.restore())
        return optimizer

    def read(
        self, ids: Tensor, state: State | None = None, masks: DropoutKey | None = None, *others: Any, **options: Any
    ) -> tuple[Tensor, State]:
        self.restore()
        for module in self.forward_layers if masks is not None else ():
            weight = module.weight_hh_l0
            mask = (torch.rand(weight.shape, generator=self.generator) >= self.share) / (1 - self.share)
            self.whole[weight] = weight.data.clone(), mask
            weight.data *= mask
        return super().read(ids, state, masks, *others, **options)

    def restore(self) -> None:
        """Put the weights back; where they are missing they have no gradient."""
        for weight, (whole, mask) in self.whole.items():
            weight.data.copy_(whole)
            if weight.grad is not None:
                weight.grad *= mask
        self.whole = {}


class Penalties(Changed):
    """Merity et al., 2017: on large outputs, and on outputs that change; as their gradients."""

    large, changing = 1.0, 1.0

    def drop(self, values: Tensor, masks: DropoutKey | None, layer: int) -> Tensor:
        dropped = super().drop(values, masks, layer)
        if masks is not None and layer == self.config.num_layers:
            large = 2 * self.large / dropped.numel() * dropped.detach()
            steps = values.detach()[:, 1:] - values.detach()[:, :-1]
            steps *= 2 * self.changing / steps.numel()
            of_changes = functional.pad(steps, (0, 0, 1, 0)) - functional.pad(steps, (0, 0, 0, 1))
            values.register_hook(lambda gradient: gradient + of_changes)
            dropped.register_hook(lambda gradient: gradient + large)
        return dropped


class Averages(Changed):
    """Polyak and Juditsky, 1992: exponential averages of the weights, bias-corrected; horizons as shares of the run."""

    horizons = (0.02, 0.06, 0.15)

    def optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        optimizer = super().optimizer(config)
        self.shares = [1 / (share * config.steps) for share in self.horizons]
        self.means = [[torch.zeros_like(weight) for weight in self.parameters()] for _ in self.horizons]
        optimizer.register_step_post_hook(lambda *arguments: self.average())
        return optimizer

    def average(self) -> None:
        with torch.no_grad():
            for share, means in zip(self.shares, self.means, strict=True):
                torch._foreach_lerp_(means, list(self.parameters()), share)

    def losses(self, trainer: Trainer) -> dict[str, float]:
        losses = super().losses(trainer)
        weights = [weight.detach().clone() for weight in self.parameters()]
        for horizon, share, means in zip(self.horizons, self.shares, self.means, strict=True):
            full = 1 - (1 - share) ** trainer.counters.step
            self.put([mean / full for mean in means])
            losses[f"{horizon:.0%}"] = evaluate_ids(self, trainer.corpus.valid, precision=trainer.precision).mean
        self.put(weights)
        return losses

    def put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.parameters(), values, strict=True):
            weight.data.copy_(value)


class DecayedEmbedding(Changed):
    """Weight decay on the embedding too."""

    def optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        optimizer, table = super().optimizer(config), self.embedding.weight
        decayed, spared = optimizer.param_groups
        spared["params"] = [weight for weight in spared["params"] if weight is not table]
        decayed["params"].append(table)
        return optimizer


class Muon(Changed):
    """Jordan et al., 2024: orthogonal steps for the recurrent layers' matrices."""

    decay = 0.1

    def optimizer(self, config: TrainConfig) -> torch.optim.Optimizer:
        matrices = [weight for weight in self.forward_layers.parameters() if weight.ndim > 1]
        others = super().optimizer(config)
        for group in others.param_groups:
            group["params"] = [weight for weight in group["params"] if not any(weight is matrix for matrix in matrices)]
        muon = torch.optim.Muon(matrices, weight_decay=self.decay, adjust_lr_fn="match_rms_adamw")
        return _Both(others, muon)


class _Both:
    """Two optimizers as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self.param_groups = [group for optimizer in optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self, set_to_none: bool) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=set_to_none)


class MinGru(Changed):
    """Feng et al., 2024: gates that do not read the state; on a GPU a window would be a parallel scan. Four layers.

    h = (1 - z) h + z n, where z = sigmoid(W x) and n = V x; layer norm before each layer and residual connections.
    """

    settings = MappingProxyType({"num_layers": 4})

    def add(self) -> None:
        config = self.config
        sizes = [config.input_size] + [config.hidden_size] * (config.num_layers - 1)
        self.forward_layers = nn.ModuleList(nn.Linear(size, 2 * config.hidden_size) for size in sizes)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)

    def layer(self, number: int, values: Tensor, state: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor]:
        z, new = self.forward_layers[number](self.norms[number](values)).float().chunk(2, 2)
        z = z.sigmoid()
        z, new = (values.transpose(0, 1).contiguous() for values in (z, new))
        kept = 1 - z if fresh is None else (1 - z) * ~fresh.t()[:, :, None]
        outputs = _Scan.apply(kept, z * new, state).transpose(0, 1)
        return outputs, outputs[:, -1]

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        return before + values if layer else values


class _Scan(torch.autograd.Function):
    """h[t] = kept[t] h[t - 1] + added[t], all (T, B, H), from a state (B, H): position by position."""

    @staticmethod
    def forward(ctx: Any, kept: Tensor, added: Tensor, state: Tensor) -> Tensor:
        states = torch.empty(len(kept) + 1, *state.shape)
        states[0] = state
        for t in range(len(kept)):
            torch.addcmul(added[t], kept[t], states[t], out=states[t + 1])
        ctx.save_for_backward(kept, states)
        return states[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        kept, states = ctx.saved_tensors
        of_added = gradients[0].clone(memory_format=torch.contiguous_format)
        for t in range(len(kept) - 1, 0, -1):
            of_added[t - 1].addcmul_(kept[t], of_added[t])
        return of_added * states[:-1], of_added, kept[0] * of_added[0]


class Mogrifier(Changed):
    """Melis et al., 2019, for a GRU: before each step, input and state scale each other by turns, four times.

    The gates read the scaled state; what the update gate keeps is the state as it was. Step by step in PyTorch's own
    operations, because nothing of the input can be multiplied ahead.
    """

    rounds = 4

    def add(self) -> None:
        config = self.config
        self.scalings = nn.ModuleList()
        for layer in range(config.num_layers):
            sizes = config.hidden_size, config.hidden_size if layer else config.input_size
            self.scalings.append(nn.ModuleList(nn.Linear(*sizes[:: (-1) ** number]) for number in range(self.rounds)))

    def layer(self, number: int, values: Tensor, state: Tensor, fresh: Tensor | None) -> tuple[Tensor, Tensor]:
        of_input, of_state, bias_input, bias_state = self.forward_layers[number].parameters()
        outputs = []
        for t, value in enumerate(values.unbind(1)):
            kept = state = state if fresh is None else state * ~fresh[:, t, None]
            for number_of_round, scale in enumerate(self.scalings[number]):
                if number_of_round % 2:
                    state = 2 * scale(value).sigmoid() * state
                else:
                    value = 2 * scale(state).sigmoid() * value
            ahead = functional.linear(value, of_input, bias_input).float()
            behind = functional.linear(state, of_state, bias_state).float()
            (reset, update, new), (reset_too, update_too, new_too) = ahead.chunk(3, 1), behind.chunk(3, 1)
            new = torch.tanh(new + torch.sigmoid(reset + reset_too) * new_too)
            state = torch.lerp(new, kept, torch.sigmoid(update + update_too))
            outputs.append(state)
        return torch.stack(outputs, 1), state


class Tied(Plain):
    """Press and Wolf, 2017: one table for embedding and output layer, as wide as the layers."""

    settings = MappingProxyType({"tie_weights": True})


METHODS: dict[str, type[Plain]] = {
    "nothing": Plain,
    "layer norm": LayerNorm,
    "residual": Residual,
    "four layers, residual": Deeper,
    "locked dropout": LockedDropout,
    "5 % of embeddings dropped": DroppedEmbeddings,
    "2 % unknown symbols": UnknownSymbols,
    "learned first state": LearnedStart,
    "DropConnect 0.1": DropConnect,
    "penalties 1, 1": Penalties,
    "averages": Averages,
    "decayed embedding": DecayedEmbedding,
    "tied weights": Tied,
    "Muon": Muon,
    "minGRU, four layers": MinGru,
    "Mogrifier, four rounds": Mogrifier,
}


def make_trainer(method: type[Plain], corpus: Corpus, model: dict[str, Any], config: TrainConfig) -> Trainer:
    """A trainer of a method's network, by its optimizer."""
    shape = ModelConfig(**model, **method.settings)
    network = method(shape, len(corpus.vocabulary), config.seed)
    return Trainer(corpus, shape, config, model=network, optimizer=method.optimizer)


def summary(trainer: Trainer, ids: np.ndarray) -> dict[str, float]:
    """The losses of a trained model, and that on some ids of the training part."""
    train = evaluate_ids(trainer.model, ids, precision=trainer.precision).mean
    losses = trainer.model.losses(trainer)
    return {**{f"valid {name}".strip(): loss for name, loss in losses.items()}, "train": train}
