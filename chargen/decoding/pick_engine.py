"""Which engine a model gets: compiled or NumPy on the CPU, torch elsewhere."""

from collections.abc import Sequence

from chargen.arguments import Arrays
from chargen.counting.mixture import Mixture
from chargen.decoding.members_engine import MembersEngine
from chargen.decoding.mixed_engine import MixedEngine
from chargen.decoding.numpy_engine import Engine, NumpyEngine
from chargen.kernels import available
from chargen.model.config import ModelConfig
from chargen.storage.model_file import ModelFile, build_networks


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
        return cpu_engine(file.config, file.arrays, direction, mixture, file.members)
    from chargen.decoding.torch_engine import TorchEngine
    from chargen.model.device import pick_device

    where = str(pick_device(device))
    networks = build_networks(file, where)
    return _join([TorchEngine(network, direction) for network in networks], mixture)


def cpu_engine(
    config: ModelConfig,
    arrays: Arrays,
    direction: str,
    mixture: Mixture | None = None,
    members: Sequence[Arrays] = (),
) -> Engine:
    """Make the compiled engine of a model, or the one of NumPy without numba.

    Args:
        config: the model's shape.
        arrays: its weights by name.
        direction: the stack that it steps.
        mixture: what its logits are mixed with.
        members: the weights of other networks, which predict beside the first.
    """
    if not available():
        return _join([NumpyEngine(config, own, direction) for own in (arrays, *members)], mixture)
    from chargen.decoding.compiled_engine import CompiledEngine

    return CompiledEngine(config, arrays, direction, mixture, members)


def _join(engines: Sequence[Engine], mixture: Mixture | None) -> Engine:
    """One engine of those of all networks, and of counts."""
    engine = MembersEngine(engines) if len(engines) > 1 else engines[0]
    return MixedEngine(engine, mixture) if mixture else engine
