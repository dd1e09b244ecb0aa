"""How bytes become text, or records: the settings."""

import codecs
from dataclasses import dataclass

from chargen.data.records import KINDS, kind_of
from chargen.data.tables import TABLES
from chargen.data.utf8 import SURROGATE
from chargen.errors import SettingError, repr_short
from chargen.settings import check_settings, setting

RAW = "raw"
"""An encoding in which a byte is a character, as Python's surrogateescape writes it (not ASCII: U+DC80 to U+DCFF)."""


@dataclass(frozen=True)
class ReadingConfig:
    """How bytes become text."""

    encoding: str = setting(
        "utf-8",
        "encoding of the text files; raw, with bytes as the unit, takes any file as it is, .gz and the like unpacked",
    )
    errors: str = setting("strict", "a byte that does not fit the encoding stops, or becomes U+FFFD and is counted",
                          choices=("strict", "replace"))  # fmt: skip
    newline: str = setting("keep", "line ends: as they are, or every CR LF and CR becomes LF", choices=("keep", "lf"))
    normalize: str = setting("none", "Unicode normal form of the text", choices=("none", "NFC"))
    documents: bool | None = setting(None, "Word, EPUB, PDF and HTML files become their text; by default all but HTML, "
                                     "where chargen[documents] is installed")  # fmt: skip
    between: str | None = setting(None, "text between two files; by default a line end where a file lacks one")
    records: str | None = setting(None, "learn whole records, each of which begins anew: line, blank-line, file, "
                                  "jsonl, csv, tsv, or the text that separates two")  # fmt: skip
    text_field: str | None = setting(None, "of jsonl, csv and tsv records, the field with the text")
    label_field: str | None = setting(None, "of jsonl, csv and tsv records, the field with the label")
    label_from: str | None = setting(None, "what a record's label is: the name of its folder or its file",
                                     choices=("folder", "file"))  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)
        self._check_records()
        if self.encoding == RAW:
            if self.documents:
                raise SettingError("documents is for text: raw bytes are learned as they are", "documents")
            if self.normalize != "none":
                raise SettingError(f"normalize is {self.normalize}: raw bytes have no normal form", "normalize")
            return
        if SURROGATE.search(self.between or ""):
            raise SettingError(f"between is {repr_short(self.between)}, which is no text: give one", "between")
        try:
            if codecs.lookup(self.encoding).name in ("idna", "punycode"):
                raise ValueError(self.encoding)
            "".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise SettingError(
                f"encoding is {self.encoding!r}: Python knows no such text encoding", "encoding"
            ) from error

    def _check_records(self) -> None:
        fields = {name: getattr(self, name) for name in ("text_field", "label_field", "label_from")}
        for name, value in (fields | {"records": self.records}).items():
            if value is not None and self.records is None:
                raise SettingError(f"{name} is {value}: it is for records; give `records`", name)
            if value is not None and (not value or SURROGATE.search(value)):
                advice = f"give {', '.join(KINDS)} or a text" if name == "records" else "give a name, or leave it out"
                raise SettingError(f"{name} is {repr_short(value)}, which is no text: {advice}", name)
        if self.label_field and self.label_from:
            raise SettingError(
                f"label_field is {self.label_field} and `label_from` {self.label_from}: give one", "label_field"
            )
        if self.records is not None and self.between is not None:
            raise SettingError("between is for running text: records stand for themselves", "between")
        if self.records is not None and self.encoding == RAW:
            raise SettingError("encoding is raw: raw bytes leave no symbol for the end of a record", "encoding")

    @property
    def has_lf(self) -> bool:
        """Whether line ends become LF: asked for, or what records are cut at."""
        records = self.records or ""
        cut_at_lines = records in ("line", "blank-line", *TABLES) or ("\n" in records and "\r" not in records)
        return self.newline == "lf" or cut_at_lines

    def records_of(self, path: str) -> str:
        """Say what the records of a file are, where there are records.

        Args:
            path: of the file; "" where it has none.

        Returns:
            A kind of records, or the text between two, with line ends as the file's become.
        """
        kind = str(self.records)
        if self.has_lf and kind not in KINDS:
            kind = kind.replace("\r\n", "\n").replace("\r", "\n")
        has_fields = kind in TABLES or self.text_field is not None or self.label_field is not None
        return kind_of(path, kind, has_fields=has_fields)
