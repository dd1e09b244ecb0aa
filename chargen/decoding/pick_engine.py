"""Which stepper a model gets, compiled or in NumPy on the CPU, torch elsewhere; and where a sample begins on it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chargen.decoding.numpy_engine import NumpyStepper, State, Stepper
from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.storage.model_file import new_model
from chargen.storage.weight_checks import Arrays


def new_stepper(config: ModelConfig, arrays: Arrays, device: str, direction: str = "forward") -> Stepper:
    """A stepper of one direction: for the CPU compiled, or in NumPy where numba is not there; else in torch.

    Raises SettingError where the device or the direction is not there.
    """
    if device == "cpu":
        if not available():
            return NumpyStepper(config, arrays, direction)
        from chargen.decoding.compiled_engine import Decoder

        return Decoder(config, arrays, direction)
    from chargen.decoding.torch_engine import TorchStepper
    from chargen.model.device import pick_device

    size = len(arrays["output.bias"])
    return TorchStepper(new_model(config, size, arrays, str(pick_device(device))), direction)


def fresh(stepper: Stepper, first_logits: NDArray[Any], begin: NDArray[Any]) -> tuple[NDArray[Any], State]:
    """Logits (1, V) and state, one row, of a sample that has read the begin text, or nothing.

    Args:
        first_logits: (V,), for a character that nothing is known about.
        begin: ids of the begin text, in the order of reading; may be none.
    """
    logits, state = first_logits[None], stepper.start(1)
    return stepper.read(begin[None], np.array([len(begin)]), logits, state) if len(begin) else (logits, state)
