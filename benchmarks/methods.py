"""Methods that were tried for better text, each as what it changes in the trainer.

None of them is in the package but weight decay, dropout, tied weights and the spared embedding; `benchmarks.ablation`
compares them, and `benchmarks/README.md` has what came out.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chargen import Trainer
from chargen.data.batches import Batch
from chargen.evaluation.loss import evaluate_ids
from chargen.model.dropout import DropoutKey, drop
from chargen.model.layers import State, run_layer, zero_state


class Plain(Trainer):
    """Nothing changed."""

    settings: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Of the model, where they are other ones."""

    def losses(self) -> dict[str, float]:
        """Of the last weights on the whole validation part, by what distinguishes them."""
        return {"": self.summary["valid_loss"]}


class Changed(Plain):
    """What the model does, in pieces that a method may replace."""

    def _set_up(self, *arguments: Any) -> None:
        super()._set_up(*arguments)
        self.generator = torch.Generator().manual_seed(self.config.seed)
        before = set(self.model.parameters())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.add()
        new = [weight for weight in self.model.parameters() if weight not in before]
        if new:
            decayed = [weight for weight in new if weight.ndim > 1]
            others = [weight for weight in new if weight.ndim == 1]
            self.optimizer.add_param_group({"params": decayed, "weight_decay": self.config.weight_decay})
            self.optimizer.add_param_group({"params": others, "weight_decay": 0.0})
            self.parts["forward"] += new
        self.model.read = self.read

    def add(self) -> None:
        """Give the model what else it needs."""

    def first(self, rows: int) -> State:
        return zero_state(self.model_config, rows, self.device)

    def embed(self, ids: Tensor, noise: DropoutKey | None) -> Tensor:
        return self.model.embedding(ids)

    def drop(self, values: Tensor, noise: DropoutKey | None, layer: int) -> Tensor:
        return drop(values, self.model_config.dropout, noise, layer)

    def layer(self, number: int, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return run_layer(self.model.forward_layers[number], values, state)

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        """What goes on, from what was before a layer and what came out of it."""
        return values

    def read(
        self, ids: Tensor, state: State | None = None, noise: DropoutKey | None = None, direction: str = "forward"
    ) -> tuple[Tensor, State]:
        state = self.first(len(ids)) if state is None else state
        values, carried = self.embed(ids, noise), []
        for layer in range(self.model_config.num_layers):
            entering = self.drop(values, noise, layer) if layer else values
            found, after = self.layer(layer, entering, state[layer])
            values = self.join(layer, values, found)
            carried.append(after)
        return self.drop(values, noise, self.model_config.num_layers), tuple(carried)


class LayerNorm(Changed):
    """Ba, Kiros and Hinton, 2016: on the output of each layer."""

    def add(self) -> None:
        size = self.model_config.hidden_size
        self.model.norms = nn.ModuleList(nn.LayerNorm(size) for _ in range(self.model_config.num_layers))

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        return self.model.norms[layer](values)


class Residual(Changed):
    """He et al., 2015: a layer adds to what it reads, from the second on."""

    def join(self, layer: int, before: Tensor, values: Tensor) -> Tensor:
        return before + values if layer else values


class Deeper(Residual):
    """Twice as many layers, residual connections."""

    settings = MappingProxyType({"num_layers": 4})


class LockedDropout(Changed):
    """Gal and Ghahramani, 2016: one mask for a whole window."""

    def drop(self, values: Tensor, noise: DropoutKey | None, layer: int) -> Tensor:
        rate = self.model_config.dropout
        if noise is None or not rate:
            return values
        kept = torch.rand(len(values), 1, values.shape[2], generator=self.generator) >= rate
        return values * kept / (1 - rate)


class DroppedEmbeddings(Changed):
    """Gal and Ghahramani, 2016: a share of the characters is missing from a minibatch."""

    share = 0.05

    def embed(self, ids: Tensor, noise: DropoutKey | None) -> Tensor:
        table = self.model.embedding.weight
        if noise is not None:
            kept = torch.rand(len(table), 1, generator=self.generator) >= self.share
            table = table * kept / (1 - self.share)
        return functional.embedding(ids, table)


class UnknownSymbols(Changed):
    """Characters that are read as one unknown symbol, with a row of its own."""

    share = 0.02

    def add(self) -> None:
        self.model.unknown = nn.Parameter(torch.randn(self.model_config.input_size))

    def embed(self, ids: Tensor, noise: DropoutKey | None) -> Tensor:
        values = self.model.embedding(ids)
        if noise is None:
            return values
        unknown = torch.rand(*ids.shape, 1, generator=self.generator) < self.share
        return torch.where(unknown, self.model.unknown, values)


class LearnedStart(Changed):
    """The state of an unknown context is learned."""

    def add(self) -> None:
        config = self.model_config
        self.model.start = nn.ParameterList(torch.zeros(config.state_size) for _ in range(config.num_layers))

    def first(self, rows: int) -> State:
        return tuple(layer.expand(rows, -1) for layer in self.model.start)

    def _carried(self, direction: str, batch: Batch) -> State | None:
        state = super()._carried(direction, batch)
        if state is None:
            return None
        fresh = (state[0] == 0).all(1, keepdim=True)
        return tuple(torch.where(fresh, start, layer) for start, layer in zip(self.model.start, state, strict=True))


class DropConnect(Changed):
    """Wan et al., 2013, as Merity et al., 2017: recurrent weights that are missing for a step."""

    share = 0.1

    def _carried(self, direction: str, batch: Batch) -> State | None:
        self.whole = {}
        for module in self.model.forward_layers:
            weight = module.weight_hh_l0
            mask = (torch.rand(weight.shape, generator=self.generator) >= self.share) / (1 - self.share)
            self.whole[weight] = weight.data.clone(), mask
            weight.data *= mask
        return super()._carried(direction, batch)

    def _apply(self, good: Tensor, hidden: dict[str, State]) -> None:
        for weight, (whole, mask) in self.whole.items():
            weight.data.copy_(whole)
            weight.grad *= mask
        super()._apply(good, hidden)


class Penalties(Changed):
    """Merity et al., 2017: on large outputs, and on outputs that change; as their gradients."""

    large, changing = 1.0, 1.0

    def drop(self, values: Tensor, noise: DropoutKey | None, layer: int) -> Tensor:
        dropped = super().drop(values, noise, layer)
        if noise is not None and layer == self.model_config.num_layers:
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

    def add(self) -> None:
        self.means = {
            share: [torch.zeros_like(weight) for weight in self.model.parameters()] for share in self.horizons
        }

    def _apply(self, good: Tensor, hidden: dict[str, State]) -> None:
        super()._apply(good, hidden)
        for share, means in self.means.items():
            torch._foreach_lerp_(means, list(self.model.parameters()), 1 / (share * self.config.steps))

    def losses(self) -> dict[str, float]:
        found = super().losses()
        weights = [weight.detach().clone() for weight in self.model.parameters()]
        for share, means in self.means.items():
            full = 1 - (1 - 1 / (share * self.config.steps)) ** self.counters.step
            self.put([mean / full for mean in means])
            found[f"{share:.0%}"] = evaluate_ids(self.model, self.corpus.valid, precision=self.precision).mean
        self.put(weights)
        return found

    def put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.model.parameters(), values, strict=True):
            weight.data.copy_(value)


class DecayedEmbedding(Changed):
    """Weight decay on the embedding too."""

    def add(self) -> None:
        table = self.model.embedding.weight
        decayed, others = self.optimizer.param_groups
        others["params"] = [weight for weight in others["params"] if weight is not table]
        decayed["params"].append(table)


class Muon(Changed):
    """Jordan et al., 2024: orthogonal steps for the recurrent layers' matrices."""

    decay = 0.1

    def add(self) -> None:
        matrices = [weight for weight in self.model.forward_layers.parameters() if weight.ndim > 1]
        for group in self.optimizer.param_groups:
            group["params"] = [one for one in group["params"] if not any(one is matrix for matrix in matrices)]
        muon = torch.optim.Muon(matrices, weight_decay=self.decay, adjust_lr_fn="match_rms_adamw")
        self.optimizer = _Both(self.optimizer, muon)


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
        config = self.model_config
        sizes = [config.input_size] + [config.hidden_size] * (config.num_layers - 1)
        before = set(self.model.forward_layers.parameters())
        self.model.forward_layers = nn.ModuleList(nn.Linear(size, 2 * config.hidden_size) for size in sizes)
        self.model.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)
        for group in self.optimizer.param_groups:
            group["params"] = [one for one in group["params"] if one not in before]
        self.parts["forward"] = [one for one in self.parts["forward"] if one not in before]

    def layer(self, number: int, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        z, new = self.model.forward_layers[number](self.model.norms[number](values)).float().chunk(2, 2)
        z = z.sigmoid()
        z, new = (values.transpose(0, 1).contiguous() for values in (z, new))
        outputs = _Scan.apply(1 - z, z * new, state).transpose(0, 1)
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
        config = self.model_config
        self.model.turns = nn.ModuleList()
        for layer in range(config.num_layers):
            sizes = config.hidden_size, config.hidden_size if layer else config.input_size
            self.model.turns.append(nn.ModuleList(nn.Linear(*sizes[:: (-1) ** turn]) for turn in range(self.rounds)))

    def layer(self, number: int, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        of_input, of_state, bias_input, bias_state = self.model.forward_layers[number].parameters()
        outputs = []
        for value in values.unbind(1):
            kept = state
            for turn, scale in enumerate(self.model.turns[number]):
                if turn % 2:
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


def summary(trainer: Plain, ids: np.ndarray) -> dict[str, float]:
    """The losses of a trained model, and that on some ids of the training part."""
    train = evaluate_ids(trainer.model, ids, precision=trainer.precision).mean
    return {**{f"valid {name}".strip(): loss for name, loss in trainer.losses().items()}, "train": train}
