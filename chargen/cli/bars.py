"""Progress for people: bars on a terminal, a line now and then elsewhere, and a taste of what the model writes."""

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from chargen.cli.terminal import STDERR, cells, columns, escape_control, fold, quiet, tell_above

if TYPE_CHECKING:
    from chargen.training.progress import Progress
    from chargen.training.trainer import Trainer

    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

PREVIEW_SECONDS = 20.0
TELL_SECONDS = 60.0
GRAPH = 20
"""Columns of the bar itself, where there is room for all."""


class Bar(_Tqdm):
    """A bar on standard error, where that is a terminal: one row of as many columns as it has at that moment."""

    def __init__(self, **settings: Any) -> None:
        settings = {"file": STDERR, "leave": False, "disable": None, **settings}
        super().__init__(**settings | ({"disable": True} if quiet() else {}))

    @property
    def format_dict(self) -> Any:
        """What tqdm makes the row of."""
        return {**super().format_dict, "ncols": columns()}

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Who writes a row over the one before, with blanks as far as the terminal goes now and no farther."""
        before = ""

        def show(row: str) -> None:
            nonlocal before
            # Where there was no bar, what stands in this row is left alone.
            file.write(f"\r{row}{' ' * ((columns() or 0) - cells(row))}" if row or before else "\r")
            file.flush()
            before = row

        return show


class ReadingBar:
    """Bytes read, counted and encoded; appears only where it takes longer than a second."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
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
            self._bar = Bar(desc=f"{what:8}", total=total, unit="B", unit_scale=True, delay=1)
        self._bar.update(done - self._bar.n)


class TrainingBar:
    """Loss, bits per character, speed and time left; after a validation, a few lines from the model.

    Args:
        trainer: the run.
        preview: how many characters to write then; 0 for none.
    """

    def __init__(self, trainer: "Trainer", preview: int) -> None:
        self.trainer = trainer
        self.preview = 0 if quiet() else preview
        self._bar = Bar(total=100, bar_format="{percentage:3.0f}%  {desc}")
        self._told = trainer.counters.logged_step
        self._told_at = self._previewed = time.monotonic()
        self._loss: float | None = None
        self._valid = ""
        self._warned = ""

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, progress: "Progress") -> None:
        """Called after every step and every window of a validation."""
        if progress.doing == "training" and not math.isnan(progress.train_loss):
            # A running mean: single steps jump too much to read.
            self._loss = progress.train_loss if self._loss is None else 0.95 * self._loss + 0.05 * progress.train_loss
        if progress.valid_loss is not None:
            self._valid = self._validation(progress.valid_loss, progress.valid_losses)
        self._bar.n = 100 * progress.share
        self._show_row(progress)
        step, now = progress.step, time.monotonic()
        if progress.warning != self._warned:
            self._warned = progress.warning
            tell_above(
                escape_control(f"warning: {self._warned}" if self._warned else "saved: the disk takes files again")
            )
        if progress.doing != "training" or step == self._told:
            return
        if progress.valid_loss is not None or now - self._told_at > TELL_SECONDS:
            self._told, self._told_at = step, now
            if self._bar.disable:
                tell_above(self._line(progress))
            if self.preview and now - self._previewed > PREVIEW_SECONDS:
                self._write_preview(step)
                self._previewed = time.monotonic()

    def _show_row(self, progress: "Progress") -> None:
        """The bar's row: what matters most where not all has room."""
        width = columns()
        if self._bar.disable or width is None:
            return
        row = self._line(progress, width - len("100%  "))
        graph = min(GRAPH, (width - len("100%|| ") - cells(row)) // 5 * 5)  # in fives: it moves less
        self._bar.bar_format = "{percentage:3.0f}%" + (f"|{{bar:{graph}}}| {{desc}}" if graph > 0 else "  {desc}")
        self._bar.set_description_str(row)

    def _line(self, progress: "Progress", room: float = math.inf) -> str:
        """How the run stands, in as many columns as there are: the most important figures of those that fit."""
        left = progress.doing if progress.doing != "training" else f"{_clock(progress.seconds_left)} left"
        valid, _, parts = self._valid.partition(" = ")
        figures = [  # in their order on the row, each with its rank
            (4, f"step {progress.step:,}"),
            (5, f"epoch {progress.epoch:.2f}"),
            (0, "" if self._loss is None else f"loss {self._with_bits(self._loss)}"),
            (2, valid),
            (6, f"= {parts}" if parts else ""),
            (3, f"{progress.chars_per_second:,.0f} chars/s"),
            (1, left),
        ]
        kept: list[tuple[int, str]] = []
        for figure in sorted(figure for figure in figures if figure[1]):
            if cells("  ".join(text for _, text in [*kept, figure])) <= room:
                kept.append(figure)
        return "  ".join(figure[1] for figure in figures if figure in kept)

    def _validation(self, loss: float, parts: Mapping[str, float]) -> str:
        """The latest validation's figures: they stay on the line until the next."""
        of = f" = mean of forward {parts['forward']:.3f}, backward {parts['backward']:.3f}" if parts else ""
        return f"valid {self._with_bits(loss)}{of}"

    def _with_bits(self, loss: float) -> str:
        return f"{loss:.3f} ({loss / math.log(2):.3f} bits/char)"

    def _write_preview(self, step: int) -> None:
        from chargen.decoding.numpy_engine import NumpyStepper
        from chargen.sampling.sampler import Sampler

        model = self.trainer.model_file()
        # On a new machine the faster steps would have to be compiled first: for a few characters, out of the budget.
        sampler = Sampler(model, seed=step, temperature=0.8, stepper=NumpyStepper(model.config, model.arrays))
        tell_above(f"  step {step:,} writes:")
        width = columns()
        for line in escape_control(sampler.generate(self.preview)).split("\n"):
            rows = [line] if width is None else fold(line.expandtabs(4), width - 4)
            # A bar begins each line that the model has begun.
            tell_above("\n".join(f"  {' ' if number else '|'} {row}" for number, row in enumerate(rows)))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
