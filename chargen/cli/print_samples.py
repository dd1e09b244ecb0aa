"""How `chargen sample` prints samples."""

import json
from dataclasses import dataclass
from typing import Any

from chargen.cli.terminal import TextWriter, write_separator
from chargen.data.records import KINDS
from chargen.sampling.sample import Character, Sample
from chargen.storage.model_file import ModelFile


@dataclass
class SamplePrinter:
    """Prints the first sample as it comes and the others after it; JSON lines and reversed samples all at the end.

    Or prints samples that come as a whole.

    Args:
        num: samples.
        echo: what each begins with (reversed: ends with).
        writer: where they go.
        form: "text" or "jsonl".
        reverse: whether they are written from their end.
        separator: what stands between two; None for the usual.
        shown: what JSON lines say of all samples; None is left out.
        first: the number of the first sample, from 0.
        continues: whether samples before the first stand in another output, behind which this may be put.
    """

    num: int
    echo: str
    writer: TextWriter
    form: str
    reverse: bool
    separator: str | None
    shown: dict[str, Any]
    first: int = 0
    continues: bool = False

    def __post_init__(self) -> None:
        self.held: list[list[Character]] = []
        self.begun = False
        self.end = ""
        """Behind the last sample."""

    def separate_records(self, file: ModelFile) -> None:
        """Let records be lines where no line end is in them, else separated as in training, unless it was said how.

        Args:
            file: the model.
        """
        records, vocabulary = file.reading.records, file.vocabulary
        if self.separator is not None or not vocabulary.records:
            return
        if not (vocabulary.writes("\n") and file.counts[vocabulary.encode("\n")[0]]):
            self.separator = self.end = "\n"
        elif records == "blank-line":
            self.separator, self.end = "\n\n", "\n"
        elif records not in KINDS:
            self.separator = records

    def begin(self) -> None:
        """Begin with samples whose characters come one by one."""
        self.held = [[] for _ in range(self.num)]
        if not self.reverse:
            self._begin(0)

    def _begin(self, number: int) -> None:
        self.begun = True
        if self.form == "text":
            if self.continues and not number and not self.writer.terminal:
                self.writer.write(("\0" if self.separator is None else self.separator).removeprefix(self.end))
            place = f"{self.first + number + 1} of {self.first + self.num}"
            headings = [place] if self.num > 1 and not self.end else []
            write_separator(self.writer, number, self.separator, headings)
            self.writer.write("" if self.reverse else self.echo)

    def add(self, character: Character) -> None:
        """Print a character of a sample, or hold it back.

        Args:
            character: the next one.
        """
        if self.form == "text" and character.stream == 0 and not self.reverse:
            self.writer.write(character.character)
        else:
            self.held[character.stream].append(character)

    def print_sample(self, number: int, sample: Sample) -> None:
        """Print a sample that is complete.

        Args:
            number: of the sample among those that are printed, from 0.
            sample: the sample.
        """
        if self.form == "jsonl":
            shown = {name: value for name, value in self.shown.items() if value is not None}
            line: dict[str, Any] = {"sample": self.first + number, **shown}
            line |= {"text": sample.text, "stopped": sample.stopped} | ({"reverse": True} if self.reverse else {})
            line["log_probs"] = [round(log_prob, 6) for log_prob in sample.log_probs]
            line |= {} if sample.end_log_prob is None else {"end_log_prob": round(sample.end_log_prob, 6)}
            self.writer.write(json.dumps(line) + "\n")
        else:
            self._begin(number)
            self.writer.write(sample.text + self.echo * self.reverse)

    def close(self) -> None:
        """Print the characters that were held back."""
        for number, characters in enumerate(self.held):
            if number or self.reverse or self.form == "jsonl":
                self.print_sample(number, Sample.of(characters, self.reverse))
        if self.form == "text" and self.begun:
            self.writer.write(self.end)
        self.writer.close()
