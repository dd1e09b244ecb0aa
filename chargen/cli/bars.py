"""Progress for people: bars on a terminal, a line now and then elsewhere, and a taste of what the model writes."""

import math
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from chargen.cli.terminal import STDERR, tell_above, visible

if TYPE_CHECKING:
    from chargen.training.progress import Progress
    from chargen.training.trainer import Trainer

PREVIEW_SECONDS = 20.0
TELL_SECONDS = 60.0


class ReadingBar:
    """Bytes read, counted and encoded; appears only where it takes longer than a second."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._what = ""

    def __enter__(self) -> "ReadingBar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, what: str, done: int, total: int | None) -> None:
        """Called after every block."""
        if what != self._what or self._bar is None:
            self.__exit__()
            self._what = what
            self._bar = tqdm(
                desc=f"{what:8}",
                total=total,
                unit="B",
                unit_scale=True,
                delay=1,
                leave=False,
                disable=None,
                file=STDERR,
            )
        self._bar.update(done - self._bar.n)


class TrainingBar:
    """Loss, bits per character, speed and time left; after a validation, a few lines from the model.

    Args:
        trainer: the run.
        preview: how many characters to write then; 0 for none.
    """

    def __init__(self, trainer: "Trainer", preview: int) -> None:
        self.trainer = trainer
        self.preview = preview
        self._bar: tqdm[Any] = tqdm(
            total=100, disable=None, file=STDERR, leave=False, bar_format="{percentage:3.0f}%|{bar:20}| {desc}"
        )
        self._told = trainer.counters.logged_step
        self._told_at = self._previewed = time.monotonic()
        self._loss: float | None = None
        self._warned = ""

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, progress: "Progress") -> None:
        """Called after every step and every window of a validation."""
        if not math.isnan(progress.train_loss):
            # A running mean: single steps jump too much to read.
            self._loss = progress.train_loss if self._loss is None else 0.95 * self._loss + 0.05 * progress.train_loss
        self._bar.n = 100 * progress.share
        self._bar.set_description_str(self._line(progress))
        step, now = progress.step, time.monotonic()
        if progress.warning != self._warned:
            self._warned = progress.warning
            tell_above(visible(f"warning: {self._warned}" if self._warned else "saved: the disk takes files again"))
        if progress.doing != "training" or step == self._told:
            return
        validated = self.trainer.validates and step % self.trainer.eval_every == 0
        if validated or now - self._told_at > TELL_SECONDS:
            self._told, self._told_at = step, now
            if self._bar.disable:
                tell_above(self._line(progress))
            if self.preview and now - self._previewed > PREVIEW_SECONDS:
                self._write_preview(step)
                self._previewed = time.monotonic()

    def _line(self, progress: "Progress") -> str:
        parts = [f"step {progress.step:,}", f"epoch {progress.epoch:.2f}"]
        if self._loss is not None:
            parts.append(f"loss {self._with_bits(self._loss)}")
        if progress.valid_loss is not None:
            parts.append(f"valid {self._with_bits(progress.valid_loss)}")
        if "backward" in progress.valid_losses:
            losses = progress.valid_losses
            parts[-1] += f" = mean of forward {losses['forward']:.3f}, backward {losses['backward']:.3f}"
        parts.append(f"{progress.chars_per_second:,.0f} chars/s")
        parts.append(progress.doing if progress.doing != "training" else f"{_clock(progress.seconds_left)} left")
        return "  ".join(parts)

    def _with_bits(self, loss: float) -> str:
        return f"{loss:.3f} ({loss / math.log(2):.3f} bits/char)"

    def _write_preview(self, step: int) -> None:
        from chargen.sampling.sampler import Sampler
        from chargen.sampling.stepper import NumpyStepper

        model = self.trainer.model_file()
        # On a new machine the faster steps would have to be compiled first: for a few characters, out of the budget.
        sampler = Sampler(model, seed=step, temperature=0.8, stepper=NumpyStepper(model.config, model.arrays))
        text = visible(sampler.generate(self.preview)).replace("\n", "\n  | ")
        tell_above(f"  step {step:,} writes:\n  | {text}")


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
