"""Which engine a model gets: compiled or NumPy on the CPU, torch elsewhere."""

from chargen.arguments import Arrays
from chargen.counting.mixture import Mixture
from chargen.decoding.mixed_engine import MixedEngine
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.storage.model_file import ModelFile, build_model


def new_engine(file: ModelFile, device: str, direction: str = "forward") -> Engine:
    """Make the fastest engine for a model, with its counts.

    Args:
        file: the model.
        device: "cpu", or a torch device.
        direction: the stack that it steps.

    Returns:
        The engine.

    Raises:
        SettingError: the machine does not have the device, or the model does not have the direction.
    """
    mixture = file.mixtures.get(direction)
    if device == "cpu":
        return cpu_engine(file.config, file.arrays, direction, mixture)
    from chargen.decoding.torch_engine import TorchEngine
    from chargen.model.device import pick_device

    engine = TorchEngine(build_model(file, str(pick_device(device))), direction)
    return MixedEngine(engine, mixture) if mixture else engine


def cpu_engine(config: ModelConfig, arrays: Arrays, direction: str, mixture: Mixture | None = None) -> Engine:
    """Make the compiled engine of a network, or the one of NumPy without numba.

    Args:
        config: the model's shape.
        arrays: its weights by name.
        direction: the stack that it steps.
        mixture: what its logits are mixed with.
    """
    if not available():
        engine = NumpyEngine(config, arrays, direction)
        return MixedEngine(engine, mixture) if mixture else engine
    from chargen.decoding.compiled_engine import CompiledEngine

    return CompiledEngine(config, arrays, direction, mixture)
