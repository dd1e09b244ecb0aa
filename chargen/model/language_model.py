"""Ids -> logits. The model never sees a character."""

import torch
from torch import Tensor, nn

from chargen.draws import Purpose, integer
from chargen.locks import Lock
from chargen.model.cloze import Cloze
from chargen.model.config import ModelConfig, check_direction
from chargen.model.dropout import Masks, drop
from chargen.model.recurrent import State, new_layer, run_embedded, run_layer, zero_state

BACKWARD_MASKS = 1000
"""Where the backward stack's dropout masks are addressed; there are at most 64 layers."""

_ONE_GENERATOR = Lock()
"""First weights are drawn from torch's own generator, which all threads share."""


class CharModel(nn.Module):
    """Embedding, L one-layer recurrent modules, output layer; where bidirectional, a second stack and a cloze layer.

    A logit at position t depends on ids[:, : t + 1] and the state only, and rows never mix. The two stacks share
    embedding and output layer and nothing else: neither ever reads what the other has read. Embedding and output layer
    may be one table (Press and Wolf, "Using the output embedding to improve language models", 2017).

    Args:
        config: the shape.
        vocabulary_size: V.
        seed: fixes the first weights, whatever torch's own generator does.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.vocabulary_size = vocabulary_size
        with _ONE_GENERATOR, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(integer(seed, 0, 0, Purpose.INITIALIZE))
            self.embedding = nn.Embedding(vocabulary_size, config.input_size)
            self.forward_layers = nn.ModuleList(new_layer(config, layer) for layer in range(config.num_layers))
            self.output = nn.Linear(config.hidden_size, vocabulary_size)
            if config.tie_weights:
                with torch.no_grad():  # logits of the size that untied ones begin with
                    self.embedding.weight.mul_(config.hidden_size**-0.5)
                self.output.weight = self.embedding.weight
            if config.bidirectional:
                self.backward_layers = nn.ModuleList(new_layer(config, layer) for layer in range(config.num_layers))
                self.cloze = Cloze(config, vocabulary_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    def stack(self, direction: str) -> nn.ModuleList:
        """The recurrent layers that read "forward" or "backward". Raises SettingError where there are none such."""
        check_direction(self.config, direction)
        return self.forward_layers if direction == "forward" else self.backward_layers

    def forward(
        self,
        ids: Tensor,
        state: State | None = None,
        noise: Masks | None = None,
        direction: str = "forward",
    ) -> tuple[Tensor, State]:
        """Predict the character that follows each of `ids` in its direction.

        Args:
            ids: (B, T), int64, in the order of reading: for "backward", the text's last character first.
            state: the state after the character read before them; None for an unknown context.
            noise: this step's dropout masks, or their address; without it nothing is dropped.
            direction: "forward", or "backward" where the model is bidirectional.

        Returns:
            Logits (B, T, V) and the state after the last id, to be passed on.
        """
        values, carried = self.read(ids, state, noise, direction)
        return self.output(values), carried

    def read(
        self,
        ids: Tensor,
        state: State | None = None,
        noise: Masks | None = None,
        direction: str = "forward",
    ) -> tuple[Tensor, State]:
        """As `forward`, but the last layer's outputs (B, T, H) instead of logits."""
        config = self.config
        first = 0 if direction == "forward" else BACKWARD_MASKS
        state = zero_state(config, len(ids), ids.device) if state is None else state
        carried = []
        for layer, module in enumerate(self.stack(direction)):
            if layer == 0 and (noise is None or config.layer_dropout(0) == 0):
                values, after = run_embedded(module, self.embedding, ids, state[0])  # type: ignore[arg-type]
            else:
                values = self.embedding(ids) if layer == 0 else values
                values = drop(values, config.layer_dropout(layer), noise, first + layer)
                values, after = run_layer(module, values, state[layer])  # type: ignore[arg-type]
            carried.append(after)
        last = config.num_layers
        values = drop(values, config.layer_dropout(last), noise, first + last)
        return values, tuple(carried)

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """The cloze prediction: logits (..., V) of the character between two contexts. A bidirectional model's only.

        Args:
            left: what `read` gave forward (..., H) at the character before.
            right: what `read` gave backward (..., H) at the character behind.
        """
        logits: Tensor = self.cloze(left, right, self.output(left) + self.output(right))
        return logits
