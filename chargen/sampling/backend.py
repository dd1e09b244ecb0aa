"""Which stepper a model gets: compiled or in NumPy on the CPU, torch elsewhere."""

from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.sampling.stepper import NumpyStepper, Stepper
from chargen.storage.model_file import new_model
from chargen.storage.weights import Arrays


def new_stepper(config: ModelConfig, arrays: Arrays, device: str, direction: str = "forward") -> Stepper:
    """A stepper of one direction: for the CPU compiled, or in NumPy where numba is not there; else in torch.

    Raises SettingError where the device or the direction is not there.
    """
    if device == "cpu":
        if not available():
            return NumpyStepper(config, arrays, direction)
        from chargen.sampling.decoder import Decoder

        return Decoder(config, arrays, direction)
    from chargen.model.device import pick_device
    from chargen.sampling.torch_stepper import TorchStepper

    size = len(arrays["output.bias"])
    return TorchStepper(new_model(config, size, arrays, str(pick_device(device))), direction)
