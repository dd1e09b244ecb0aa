"""The curves of runs as event files, which TensorBoard reads."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chargen.comparison.run_summary import RunSummary
from chargen.errors import SettingError

TAGS = {"loss/train": "train_loss", "loss/valid": "valid_loss", "lr": "lr", "grad_norm": "grad_norm",
        "chars_per_second": "chars_per_second"}  # fmt: skip


def write_events(runs: Iterable[RunSummary], folder: Path) -> None:
    """Write the curves of runs by step, a folder for each; an event's clock tells seconds since its run began.

    Args:
        runs: with different names.
        folder: new, or empty.

    Raises:
        SettingError: where the folder holds something, or tensorboard is not installed.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SettingError(f"tensorboard is {folder}, where something is already: name a new folder", "tensorboard")
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        needed = "`tensorboard` needs one more package: pip install 'chargen[tensorboard]'"
        raise SettingError(needed, "tensorboard") from error
    for run in runs:
        inside = Path(run.name).parts[bool(Path(run.name).anchor) :]
        with SummaryWriter(str(folder.joinpath(*inside))) as writer:
            for tag, name in TAGS.items():
                values = getattr(run.curves, name)
                for line in np.flatnonzero(np.isfinite(values)):
                    step, seconds = int(run.curves.steps[line]), float(run.curves.seconds[line])
                    writer.add_scalar(tag, values[line], step, walltime=seconds)
