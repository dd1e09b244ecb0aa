"""Which stepper a model gets: compiled or NumPy on the CPU, torch elsewhere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.numpy_engine import NumpyStepper, State, Stepper
from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.storage.model_file import new_model
from chargen.storage.weight_checks import Arrays


def new_stepper(config: ModelConfig, arrays: Arrays, device: str, direction: str = "forward") -> Stepper:
    """Make the fastest stepper for a model: on the CPU the compiled one, or NumPy without numba; elsewhere torch.

    Args:
        config: the model's shape.
        arrays: its weights by name.
        device: "cpu", or a torch device.
        direction: the stack that it steps.

    Returns:
        The stepper.

    Raises:
        SettingError: the machine does not have the device, or the model does not have the direction.
    """
    if device == "cpu":
        if not available():
            return NumpyStepper(config, arrays, direction)
        from chargen.decoding.compiled_engine import CompiledStepper

        return CompiledStepper(config, arrays, direction)
    from chargen.decoding.torch_engine import TorchStepper
    from chargen.model.device import pick_device

    size = len(arrays["output.bias"])
    return TorchStepper(new_model(config, size, arrays, str(pick_device(device))), direction)


def read_begin(stepper: Stepper, first_logits: NDArray[Any], begin: NDArray[Any]) -> tuple[NDArray[Any], State]:
    """Let a fresh row read the begin text.

    Args:
        stepper: the model's.
        first_logits: (V,), for a character of which nothing is known.
        begin: ids (N,) of the begin text, in the order of reading; may be none.

    Returns:
        Logits (1, V) for what follows, and the state, one (1, S) a layer.
    """
    logits, state = first_logits[None], stepper.start(1)
    return stepper.read(begin[None], np.array([len(begin)]), logits, state) if len(begin) else (logits, state)
