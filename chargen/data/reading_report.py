"""What reading met."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from chargen.data.reading_config import ReadingConfig
from chargen.data.records import KINDS
from chargen.errors import DataError, amount
from chargen.suggestions import did_you_mean


@dataclass
class ReadingReport:
    """Counts of what was read, filled in while the text is read.

    Args:
        files: texts.
        bytes: of all texts, unpacked.
        replaced: U+FFFD in place of bytes that did not fit the encoding.
        carriage_returns: of the texts, before line ends are changed.
        joined: how often something was put between two files.
        passed_over: names of files that are no text, each with what it is.
        excluded: files that `include` and `exclude` leave out.
        html: files that were read with their tags.
        plain_tables: files whose names say that they are tables, read as running text.
        tables: texts that are tables, whose rows are records.
        labels: of records, in the order of their first appearance, or of their symbols.
        unknown_labels: other labels, whose records have none; None where these are added to `labels`.
    """

    files: int = 0
    bytes: int = 0
    replaced: int = 0
    carriage_returns: int = 0
    joined: int = 0
    passed_over: list[str] = field(default_factory=list)
    excluded: int = 0
    html: int = 0
    plain_tables: int = 0
    tables: int = 0
    labels: list[str] = field(default_factory=list)
    unknown_labels: set[str] | None = None

    @classmethod
    def of_model(cls, labels: Iterable[str]) -> "ReadingReport":
        """Make the report of reading for a model: records with labels that it does not know have none.

        Args:
            labels: of its vocabulary.
        """
        return cls(labels=list(labels), unknown_labels=set())

    def check_files(self) -> None:
        """Check that something was read.

        Raises:
            DataError: where no file was a text.
        """
        if self.excluded and not self.files:
            raise DataError(f"`include` and `exclude` leave none of {amount(self.excluded, 'file')}: change them")
        if self.passed_over and not self.files:
            listed = ", ".join(self.passed_over[:3]) + " …" * (len(self.passed_over) > 3)
            raise DataError(f"no text among {amount(len(self.passed_over), 'file')}: {listed}")

    def check_records(self, config: ReadingConfig, number: int) -> None:
        """Check that all settings of records did something.

        Args:
            config: how bytes became text.
            number: of records.

        Raises:
            DataError: where a setting did nothing, which is rather a mistake.
        """
        if config.records is None or not number:
            return
        if config.records not in KINDS and not self.tables and number <= max(self.files, 1):
            advice = did_you_mean(config.records, KINDS) or f"; kinds of records are {', '.join(KINDS)}"
            raise DataError(f"`records` is {config.records!r}: that stands nowhere between two records{advice}")
        labels = {"label_field": config.label_field, "label_from": config.label_from}
        for name, value in (labels | {"text_field": config.text_field}).items():
            if value and name != "label_from" and not self.tables:
                raise DataError(f"`{name}` is {value}, but no text is a table (.jsonl, .csv, .tsv): leave it out")
            if value and name in labels and not self.labels:
                raise DataError(f"`{name}` is {value}, but no record has a label: leave it out")
