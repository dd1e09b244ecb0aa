"""Ids -> logits. The model never sees a character."""

import torch
from torch import Tensor, nn

from chargen.draws import Purpose, integer
from chargen.model.config import ModelConfig
from chargen.model.dropout import Noise, drop
from chargen.model.recurrent import State, new_layer, run_layer, zero_state


class CharModel(nn.Module):
    """Embedding, L one-layer recurrent modules, output layer.

    A logit at position t depends on ids[:, : t + 1] and the state only, and rows never mix.

    Args:
        config: the shape.
        vocabulary_size: V.
        seed: fixes the first weights, whatever torch's own generator does.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(integer(seed, 0, 0, Purpose.INITIALIZE))
            self.embedding = nn.Embedding(vocabulary_size, config.embedding_size)
            self.forward_layers = nn.ModuleList(new_layer(config, layer) for layer in range(config.num_layers))
            self.output = nn.Linear(config.hidden_size, vocabulary_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    def forward(self, ids: Tensor, state: State | None = None, noise: Noise | None = None) -> tuple[Tensor, State]:
        """Predict the character after each of `ids`.

        Args:
            ids: (B, T), int64.
            state: the state after the character before them; None for an unknown context.
            noise: the address of this step's dropout masks; without it nothing is dropped.

        Returns:
            Logits (B, T, V) and the state after the last id, to be passed on.
        """
        config = self.config
        state = zero_state(config, len(ids), ids.device) if state is None else state
        values = drop(self.embedding(ids), config.layer_dropout(0), noise, 0, locked=config.locked_dropout)
        carried = []
        for layer, module in enumerate(self.forward_layers, start=1):
            values, after = run_layer(module, values, state[layer - 1])  # type: ignore[arg-type]
            values = drop(values, config.layer_dropout(layer), noise, layer, locked=config.locked_dropout)
            carried.append(after)
        return self.output(values), tuple(carried)
