"""A model as a torch module of torch's own classes, which needs no chargen to be pickled, compiled or trained."""

import re

import numpy as np
import torch
from torch import Tensor, fx, nn

from chargen.exporting.direction import check_reading
from chargen.model.cloze import Cloze
from chargen.model.config import ModelConfig
from chargen.model.language_model import CharModel
from chargen.model.weights import weights_of
from chargen.storage.model_file import AnyModel, as_model_file
from chargen.storage.quantize import as_float32
from chargen.storage.weight_checks import as_weights

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
INNER_BEGIN = "a begin symbol stands behind other ids: let each record begin a row, with no state before it"


def to_torch(model: AnyModel, direction: str = "forward") -> fx.GraphModule:
    """Build a torch module of `nn.Embedding`, `nn.GRU` or `nn.LSTM`, and `nn.Linear`, with copies of a model's weights.

    It is a `torch.fx.GraphModule`: `module.code` shows all that it does, and neither its pickles nor its copies need
    chargen. `module(ids, state=None)` returns logits (B, T, V) and the state of torch's layers, h (L, B, H) or (h, c).

    Read in both directions, `module(ids)` takes ids (B, T) in the order of the text, and returns the forward, backward
    and cloze logits (B, T - 2, V): what is expected in the place of each id but the first and the last. The stacks
    share embedding and output layer, so that all of it can be trained together.

    It is in evaluation mode; in training mode it drops out as the model's config says. Where the model has records, it
    does not reset its state before a begin symbol, as chargen does, and raises a RuntimeError where one stands
    behind other ids: begin each record with its begin symbol and no state.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel.
        direction: "forward"; "backward", with ids in the order of reading; or "both".

    Raises:
        SettingError: it is no model, or does not read in this direction.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
    """
    if isinstance(model, CharModel):
        config, arrays = model.config, weights_of(model)
    else:
        file = as_model_file(model)
        config, arrays = file.config, as_weights(file.config, file.arrays)
    check_reading(config, direction)
    with torch.device("meta"):  # draws no random numbers
        kind = _BothWays if direction == "both" else _OneWay
        module = kind(config, len(arrays["output.bias"]))
    weights = {
        _rename(name, direction): torch.from_numpy(np.array(as_float32(arrays, name)))
        for name in arrays
        if not name.endswith(".scale")
    }
    if config.tie_weights:
        weights["output.weight"] = weights["embedding.weight"]
    module.load_state_dict({name: weights[name] for name in module.state_dict()}, assign=True)
    if config.tie_weights:
        module.output.weight = module.embedding.weight
    return fx.GraphModule(module, fx.Tracer().trace(module), "CharModel").eval()


def _rename(name: str, direction: str) -> str:
    """The name in the module of a weight in a model file: torch numbers the layers of a stack at the end."""
    name = re.sub(r"_layers\.(\d+)\.(\w+)_l0", r"_layers.\2_l\1", name)
    return name if direction == "both" else name.replace(f"{direction}_layers.", "layers.")


class _Ends(nn.Module):
    """Embedding and output layer, with what is dropped beside them."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        super().__init__()
        self.first_begin = size - config.begin_symbols if config.begin_symbols else None
        self.embedding = nn.Embedding(size, config.input_size)
        self.input_dropout = nn.Dropout(config.layer_dropout(0))
        self.output_dropout = nn.Dropout(config.layer_dropout(config.num_layers))
        self.output = nn.Linear(config.hidden_size, size)

    def check(self, ids: Tensor, end: int | None = None) -> None:
        """Refuse begin symbols among ids (B, T) from the second on."""
        if self.first_begin is not None:
            torch._assert_async((ids[:, 1:end] < self.first_begin).all(), INNER_BEGIN)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up ids (B, T)."""
        values: Tensor = self.input_dropout(self.embedding(ids))
        return values


def _new_stack(config: ModelConfig) -> nn.RNNBase:
    dropout = config.dropout if config.num_layers > 1 else 0.0
    return CELLS[config.cell](
        config.input_size, config.hidden_size, config.num_layers, batch_first=True, dropout=dropout
    )


class _OneWay(_Ends):
    """What a module of one direction is traced from."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        super().__init__(config, size)
        self.layers = _new_stack(config)

    def forward(self, ids: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Predict what follows each id."""
        self.check(ids)
        values, state = self.layers(self.embed(ids), state)
        return self.output(self.output_dropout(values)), state


class _BothWays(_Ends):
    """What a module of both directions is traced from."""

    def __init__(self, config: ModelConfig, size: int) -> None:
        super().__init__(config, size)
        self.forward_layers, self.backward_layers = _new_stack(config), _new_stack(config)
        self.cloze = Cloze(config, size)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict each id between the first and the last from both sides."""
        self.check(ids, -1)
        values = self.embed(ids)
        left = self.output_dropout(self.forward_layers(values)[0][:, :-2])
        right = self.output_dropout(self.backward_layers(values.flip(1))[0].flip(1)[:, 2:])
        forward, backward = self.output(left), self.output(right)
        return forward, backward, self.cloze(left, right, forward + backward)
