"""Which engine a model gets: compiled or NumPy on the CPU, torch elsewhere."""

from chargen.arguments import Arrays
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.storage.model_file import new_model


def new_engine(config: ModelConfig, arrays: Arrays, device: str, direction: str = "forward") -> Engine:
    """Make the fastest engine for a model: on the CPU the compiled one, or NumPy without numba; elsewhere torch.

    Args:
        config: the model's shape.
        arrays: its weights by name.
        device: "cpu", or a torch device.
        direction: the stack that it steps.

    Returns:
        The engine.

    Raises:
        SettingError: the machine does not have the device, or the model does not have the direction.
    """
    if device == "cpu":
        if not available():
            return NumpyEngine(config, arrays, direction)
        from chargen.decoding.compiled_engine import CompiledEngine

        return CompiledEngine(config, arrays, direction)
    from chargen.decoding.torch_engine import TorchEngine
    from chargen.model.device import pick_device

    size = len(arrays["output.bias"])
    return TorchEngine(new_model(config, size, arrays, str(pick_device(device))), direction)
