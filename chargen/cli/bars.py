"""Progress for people: bars on a terminal, a line now and then elsewhere, and previews of what the model writes."""

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from chargen.cli.terminal import (
    STDERR,
    cut_into_rows,
    display_width,
    escape_control,
    is_quiet,
    log_above_bar,
    terminal_width,
)

if TYPE_CHECKING:
    from chargen.sampling.sampler import Sampler
    from chargen.training.progress import Progress
    from chargen.training.trainer import Trainer

    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

PREVIEW_SECONDS = 20.0
"""Least time between two previews."""
DELAY = 1.0
"""Seconds that a task takes before its bar appears."""
LOG_SECONDS = 60.0
"""Most time between two lines where no terminal shows the bar."""
GRAPH_WIDTH = 20
"""Columns of the bar itself, where the row has room for them."""


class Bar(_Tqdm):
    """A bar on standard error, where that is a terminal: one row, as wide as the terminal is at that moment.

    Args:
        **settings: of `tqdm`.
    """

    def __init__(self, **settings: Any) -> None:
        settings = {"file": STDERR, "leave": False, "disable": None, **settings}
        super().__init__(**settings | ({"disable": True} if is_quiet() else {}))

    @property
    def format_dict(self) -> Any:
        """The values that tqdm formats the row from."""
        return {**super().format_dict, "ncols": terminal_width()}

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Make a function that writes a row over the last one, with blanks up to the terminal's present width."""
        last = ""

        def write_row(row: str) -> None:
            nonlocal last
            width = terminal_width()
            if width is not None:  # older releases of tqdm do not fit a row without a total
                row = cut_into_rows(row, width)[0]
            # Before the first bar, the terminal's row holds other text, which must stay.
            file.write(f"\r{row}{' ' * ((width or 0) - display_width(row))}" if row or last else "\r")
            file.flush()
            last = row

        return write_row


class TaskBar:
    """How far a task is; appears only where it takes longer. Off a terminal, a line now and then.

    Args:
        unit: what is counted.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Bar | None = None
        self._task = ""
        self._logged_at = time.monotonic()

    def __enter__(self) -> "TaskBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Clear the bar, before something is printed; it appears again where the task goes on."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def show(self, task: str, done: int, total: int | None) -> None:
        """Show how far a task is; called after every part of it.

        Args:
            task: a word or two.
            done: units so far.
            total: units in all, where known.
        """
        if task != self._task or self._bar is None:
            self.close()
            self._task = task
            self._bar = Bar(desc=f"{task:8}", total=total, unit=self._unit, unit_scale=True, delay=DELAY)
        self._bar.update(done - self._bar.n)
        if self._bar.disable and not is_quiet() and time.monotonic() - self._logged_at > LOG_SECONDS:
            self._logged_at = time.monotonic()
            log_above_bar(f"{task}: {done:,}" + (f" of {total:,}" if total else ""))


class TrainingBar:
    """Loss, bits per character, speed and time left; after a validation, a few lines from the model.

    Args:
        trainer: the run.
        preview: characters to write then; 0 for none.
    """

    def __init__(self, trainer: "Trainer", preview: int) -> None:
        self.trainer = trainer
        self.preview = 0 if is_quiet() else preview
        self._bar = Bar(total=100, bar_format="{percentage:3.0f}%  {desc}")
        self._logged_step = trainer.counters.logged_step
        self._logged_at = self._previewed_at = time.monotonic()
        self._mean_loss: float | None = None
        self._validation = ""
        self._network = trainer.counters.network
        self._warning = ""

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, progress: "Progress") -> None:
        """Show how the run stands; called after every step and every window of a validation.

        Args:
            progress: of the run.
        """
        if self._network != self.trainer.counters.network:
            self._network, self._mean_loss, self._validation = self.trainer.counters.network, None, ""
        if progress.doing == "training" and not math.isnan(progress.train_loss):
            # A running mean: losses of single steps jump too much to be read.
            loss, mean = progress.train_loss, self._mean_loss
            self._mean_loss = loss if mean is None else 0.95 * mean + 0.05 * loss
        if progress.valid_loss is not None:
            self._validation = self._format_validation(progress.valid_loss, progress.valid_losses)
        self._bar.n = 100 * progress.share
        self._set_row(progress)
        step, time_now = progress.step, time.monotonic()
        if progress.warning != self._warning:
            self._warning = progress.warning
            line = f"warning: {self._warning}" if self._warning else "saved: the disk takes files again"
            log_above_bar(escape_control(line))
        if progress.doing != "training" or step == self._logged_step:
            return
        if progress.valid_loss is not None or time_now - self._logged_at > LOG_SECONDS:
            self._logged_step, self._logged_at = step, time_now
            if self._bar.disable:
                log_above_bar(self._format_progress(progress))
            if self.preview and time_now - self._previewed_at > PREVIEW_SECONDS:
                self._write_preview(step)
                self._previewed_at = time.monotonic()

    def _set_row(self, progress: "Progress") -> None:
        """Set the bar's row: the figures that fit, and the graph where it fits too."""
        width = terminal_width()
        if self._bar.disable or width is None:
            return
        row = self._format_progress(progress, width - len("100%  "))
        # In steps of five columns, so that the bar moves less.
        graph = min(GRAPH_WIDTH, (width - len("100%|| ") - display_width(row)) // 5 * 5)
        self._bar.bar_format = "{percentage:3.0f}%" + (f"|{{bar:{graph}}}| {{desc}}" if graph > 0 else "  {desc}")
        self._bar.set_description_str(row)

    def _format_progress(self, progress: "Progress", room: float = math.inf) -> str:
        """Format how the run stands, with the most important figures that fit in `room` columns."""
        remaining = progress.doing if progress.doing != "training" else f"{_format_clock(progress.seconds_left)} left"
        valid, _, parts = self._validation.partition(" = ")
        networks = self.trainer.config.networks
        figures = [  # in their order on the row, each with its rank, 0 the most important
            (3, f"network {self._network + 1} of {networks}" if networks > 1 else ""),
            (4, f"step {progress.step:,}"),
            (5, f"epoch {progress.epoch:.2f}"),
            (0, "" if self._mean_loss is None else f"loss {self._format_loss(self._mean_loss)}"),
            (2, valid),
            (6, f"= {parts}" if parts else ""),
            (3, f"{progress.chars_per_second:,.0f} chars/s"),
            (1, remaining),
        ]
        kept: list[tuple[int, str]] = []
        for figure in sorted(figure for figure in figures if figure[1]):
            if display_width("  ".join(text for _, text in [*kept, figure])) <= room:
                kept.append(figure)
        return "  ".join(figure[1] for figure in figures if figure in kept)

    def _format_validation(self, loss: float, parts: Mapping[str, float]) -> str:
        """Format the losses of a validation, which stay on the row until the next."""
        mean = f" = mean of forward {parts['forward']:.3f}, backward {parts['backward']:.3f}" if parts else ""
        return f"valid {self._format_loss(loss)}{mean}"

    def _format_loss(self, loss: float) -> str:
        return f"{loss:.3f} ({loss / math.log(2):.3f} bits/char)"

    def _write_preview(self, step: int) -> None:
        from chargen.decoding.numpy_engine import NumpyEngine
        from chargen.sampling.sampler import Sampler

        model = self.trainer.model_file()
        # The compiled engine might have to be compiled first, at the cost of the budget, for a few characters.
        sampler = Sampler(model, seed=step, temperature=0.8, engine=NumpyEngine(model.config, model.arrays))
        log_above_bar(f"  step {step:,} writes:")
        width = terminal_width()
        for line in escape_control(_write_some(sampler, self.preview)).split("\n"):
            rows = [line] if width is None else cut_into_rows(line.expandtabs(4), width - 4)
            # "|" marks the lines of the model's text, blanks the rows that continue one.
            log_above_bar("\n".join(f"  {' ' if number else '|'} {row}" for number, row in enumerate(rows)))


def _write_some(sampler: "Sampler", length: int) -> str:
    """A text, or records of as many characters together, a line each."""
    if not sampler.vocabulary.records:
        return sampler.generate(length)
    from chargen.sampling.records import write_records

    records: list[str] = []
    for record in write_records(sampler, length, length=length, rows=1):
        records.append(record.text)
        if sum(map(len, records)) >= length:
            break
    return "\n".join(records)


def _format_clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
