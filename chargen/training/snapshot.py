"""Model, optimizer and carried state to named arrays and back: what exact resume stands on."""

import numpy as np
import torch

from chargen.model.language_model import CharModel
from chargen.model.layers import State
from chargen.model.weights import Arrays, set_weights, weights_of
from chargen.storage.run_state import hidden_prefix

Hidden = dict[str, State]
"""The carried state of each direction; empty where there is none."""


def capture(model: CharModel, optimizer: torch.optim.Optimizer, hidden: Hidden, best: Arrays | None) -> Arrays:
    """Every array of a run at the border of a step, by name; AdamW's moments are zeros before the first step."""
    arrays = {f"weights.{name}": array for name, array in weights_of(model).items()}
    arrays |= {f"best.{name}": array for name, array in (best or {}).items()}
    for direction, state in hidden.items():
        prefix = hidden_prefix(direction)
        arrays |= {f"{prefix}.{layer}": array.cpu().numpy() for layer, array in enumerate(state)}
    for name, weight in model.named_parameters():
        moments = optimizer.state[weight]
        for part, key in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            moment = moments.get(key)
            arrays[f"{part}.{name}"] = np.zeros(weight.shape, np.float32) if moment is None else moment.cpu().numpy()
    return arrays


def restore(
    arrays: Arrays, applied: int, cloze_applied: int, model: CharModel, optimizer: torch.optim.Optimizer
) -> tuple[Hidden, Arrays | None]:
    """Put what `capture` took into model and optimizer; return the carried state and the best weights.

    Args:
        applied, cloze_applied: how many steps the optimizer has made, for the stacks and for the cloze layer.
    """
    parts: dict[str, Arrays] = {}
    for name, array in arrays.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = array.copy()
    set_weights(model, parts["weights"])
    for name, weight in model.named_parameters():
        made = cloze_applied if name.startswith("cloze.") else applied
        if not made:
            continue
        optimizer.state[weight] = {
            "step": torch.tensor(float(made), device=weight.device),  # where fused AdamW keeps it
            "exp_avg": torch.from_numpy(parts["first"][name]).to(weight.device),
            "exp_avg_sq": torch.from_numpy(parts["second"][name]).to(weight.device),
        }
    carried = {}
    for direction in model.config.directions:
        if hidden := parts.get(hidden_prefix(direction)):
            layers = (torch.from_numpy(hidden[str(layer)]) for layer in range(len(hidden)))
            carried[direction] = tuple(layer.to(model.device) for layer in layers)
    return carried, parts.get("best")
