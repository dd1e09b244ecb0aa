"""Model, optimizer and carried state to named arrays and back: what exact resume stands on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from chargen.model.language_model import CharModel
from chargen.model.recurrent import State

Arrays = dict[str, NDArray[Any]]


def weights_of(model: CharModel) -> Arrays:
    """A copy of the weights in NumPy."""
    return {name: weight.detach().cpu().numpy().copy() for name, weight in model.state_dict().items()}


def set_weights(model: CharModel, weights: Arrays) -> None:
    """Put weights into a model."""
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})


def capture(model: CharModel, optimizer: torch.optim.Optimizer, hidden: State | None, best: Arrays | None) -> Arrays:
    """Every array of a run at the border of a step, by name; AdamW's moments are zeros before the first step."""
    arrays = {f"weights.{name}": array for name, array in weights_of(model).items()}
    arrays |= {f"best.{name}": array for name, array in (best or {}).items()}
    arrays |= {f"hidden.{layer}": state.cpu().numpy() for layer, state in enumerate(hidden or ())}
    for name, weight in model.named_parameters():
        moments = optimizer.state[weight]
        for part, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            moment = moments.get(key)
            arrays[f"{part}.{name}"] = np.zeros(weight.shape, np.float32) if moment is None else moment.cpu().numpy()
    return arrays


def restore(
    arrays: Arrays, applied: int, model: CharModel, optimizer: torch.optim.Optimizer
) -> tuple[State | None, Arrays | None]:
    """Put what `capture` took into model and optimizer; return the carried state and the best weights.

    Args:
        applied: how many steps the optimizer has made.
    """
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = array.copy()
    set_weights(model, parts["weights"])
    for name, weight in model.named_parameters() if applied else ():
        optimizer.state[weight] = {
            "step": torch.tensor(float(applied), device=weight.device),  # where fused AdamW keeps it
            "exp_avg": torch.from_numpy(parts["first"][name]).to(weight.device),
            "exp_avg_sq": torch.from_numpy(parts["second"][name]).to(weight.device),
        }
    hidden = parts.get("hidden")
    if hidden is None:
        return None, parts.get("best")
    carried = tuple(torch.from_numpy(hidden[str(layer)]).to(model.device) for layer in range(len(hidden)))
    return carried, parts.get("best")
