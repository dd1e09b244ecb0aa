"""Ids -> logits. The model never sees a character."""

from typing import Any

import torch
from torch import Tensor, nn

from chargen.errors import ArgumentError
from chargen.locks import Lock
from chargen.model.arguments import FLOATS, INTEGERS, check_tensor, read_floats, read_ids, read_state
from chargen.model.cloze import Cloze
from chargen.model.config import ModelConfig, check_direction, need_two_ways
from chargen.model.dropout import Masks, drop
from chargen.model.layers import State, new_layer, run_embedded, run_layer, zero_state
from chargen.rng import MAX_SEED, Purpose, generator_seed
from chargen.settings import check_int

BACKWARD_MASKS = 1000
"""Where the backward stack's dropout masks are addressed; there are at most 64 layers."""

MAX_SIZE = 0x110000
"""There are so many code points, and fewer bytes."""

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
        if not isinstance(config, ModelConfig):
            raise ArgumentError(f"config is of type {type(config).__name__}: it must be a ModelConfig")
        self.config = config
        self.vocabulary_size = vocabulary_size = check_int("vocabulary_size", vocabulary_size, 1, MAX_SIZE)
        with _ONE_GENERATOR, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                generator_seed(check_int("seed", seed, 0, MAX_SEED), 0, 0, Purpose.INITIALIZE)
            )
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
            ids: (B, T), whole numbers from 0 to V - 1 in the order of reading: for "backward", the text's last
                character first. On the host they are checked there and moved to the weights, so that a GPU need not be
                waited for.
            state: the state after the character read before them; None for an unknown context.
            noise: this step's dropout masks, or their address; without it nothing is dropped.
            direction: "forward", or "backward" where the model is bidirectional.

        Returns:
            Logits (B, T, V) and the state after the last id, to be passed on.

        Raises ArgumentError where ids or state do not fit the model, SettingError for a direction that it lacks.
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
        stack = self.stack(direction)
        check_tensor("ids", ids, INTEGERS, "B, T")
        ids = read_ids("ids", ids, len(self.embedding.weight), self.device)
        state = zero_state(config, len(ids), self.device) if state is None else self._state(state, len(ids))
        carried = []
        for layer, module in enumerate(stack):
            if layer == 0 and (noise is None or config.layer_dropout(0) == 0):
                values, after = run_embedded(module, self.embedding, ids, state[0], fits=True)  # type: ignore[arg-type]
            else:
                values = self.embedding(ids) if layer == 0 else values
                values = drop(values, config.layer_dropout(layer), noise, first + layer)
                values, after = run_layer(module, values, state[layer], fits=True)  # type: ignore[arg-type]
            carried.append(after)
        last = config.num_layers
        values = drop(values, config.layer_dropout(last), noise, first + last)
        return values, tuple(carried)

    def _state(self, state: Any, rows: int) -> State:
        """A state that somebody gives. Raises ArgumentError where it is not this model's."""
        config = self.config
        if isinstance(state, Tensor) and state.dim() == 3:
            state = tuple(state)
        if not isinstance(state, (tuple, list)) or len(state) != config.num_layers:
            found = f"has {len(state)} parts" if isinstance(state, (tuple, list)) else "is no tuple of tensors"
            raise ArgumentError(f"state {found}: needed are {config.num_layers}, one (B, S) for each layer")
        return tuple(
            read_state(f"state[{layer}]", part, rows, config.state_size, self.output.weight)
            for layer, part in enumerate(state)
        )

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """The cloze prediction: logits (..., V) of the character between two contexts. A bidirectional model's only.

        Args:
            left: what `read` gave forward (..., H) at the character before.
            right: what `read` gave backward (..., H) at the character behind.

        Raises ArgumentError where they do not fit, SettingError for a model that reads one way.
        """
        need_two_ways(self.config, "predicting from both sides")
        weight = self.output.weight
        check_tensor("left", left, FLOATS, "..., H")
        shape = (*left.shape[:-1], self.config.hidden_size)
        left, right = (
            read_floats(name, values, "..., H", shape, weight) for name, values in (("left", left), ("right", right))
        )
        logits: Tensor = self.cloze(left, right, self.output(left) + self.output(right))
        return logits
