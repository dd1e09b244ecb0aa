"""Characters <-> ids.

The stored form is a `tokenizers` file that any other program can use. Texts are encoded through a NumPy table of the
same vocabulary, which gives the same ids a hundred times faster and in memory that does not grow with its size.
"""

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chargen.arguments import check_array, check_range
from chargen.data.code_points import CODE_POINTS, END_MARK, code_points, from_code_points, label_mark, latin_bytes
from chargen.data.lookalikes import suggest_lookalikes
from chargen.data.utf8 import SURROGATE, utf8_unfinished
from chargen.errors import DataError, SettingError, amount, repr_short
from chargen.settings import check_text
from chargen.suggestions import did_you_mean

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNITS = ("character", "byte")
UNKNOWN, END = "<unk>", "<end>"
"""The names of the unknown symbol and the end symbol in a `tokenizers` file."""
END_BYTE = 0xFF
"""The end symbol among bytes: UTF-8 never contains it."""
MAX_LABELS = 2_000
RAW_BYTES = "".join(map(chr, (*range(0x80), *range(0xDC80, 0xDD00))))
"""The 256 bytes, each as the character that Python's surrogateescape writes for it."""
Ids = NDArray[np.unsignedinteger[Any]]


class Vocabulary:
    """What a model can read and write: V ids of characters, sorted by code point, or of the 256 bytes.

    Behind the characters come the unknown symbol, where rare ones are folded, and the begin symbols, where the text
    consists of records: the end symbol, then one for each label. Among bytes, 0xFF is the end symbol.

    Args:
        characters: the known characters, sorted and distinct; for bytes of UTF-8 empty, for raw bytes `RAW_BYTES`.
        folded: rare characters that share one unknown symbol.
        unit: "character" or "byte": what an id stands for. A byte vocabulary knows every text.
        records: whether there is an end symbol, before which a state is reset.
        labels: names, each with a begin symbol that is read instead of the end symbol.

    Raises:
        ValueError: where the characters do not fit together or the unit, or labels are not distinct names of records.
    """

    def __init__(
        self,
        characters: str = "",
        *,
        folded: str = "",
        unit: str = "character",
        records: bool = False,
        labels: Sequence[str] = (),
    ) -> None:
        codes, folded_codes = code_points(characters), code_points(folded)
        if (codes[1:] <= codes[:-1]).any() or (folded_codes[1:] <= folded_codes[:-1]).any():
            raise ValueError("a vocabulary's characters must be sorted and distinct")
        if unit not in UNITS or (unit == "byte" and (characters not in ("", RAW_BYTES) or folded)):
            raise ValueError(f"unit is {unit!r}: a byte vocabulary has no characters of its own")
        if unit == "character" and SURROGATE.search(characters + folded):
            raise ValueError("a lone surrogate is not a character")
        if np.isin(folded_codes, codes).any():
            raise ValueError("a folded character is also a known one")
        if records and characters == RAW_BYTES and unit == "byte":
            raise ValueError("raw bytes leave no symbol for the end of a record")
        if not all(isinstance(label, str) and label and not SURROGATE.search(label) for label in labels):
            raise ValueError("a label must be a text that is not empty")
        if len(set(labels)) < len(labels) or len(labels) > MAX_LABELS * records:
            raise ValueError(f"labels must be distinct, of records, and at most {MAX_LABELS:,}")
        self.characters = characters
        self.folded = folded
        self.unit = unit
        self.records = records
        self.labels = tuple(labels)

    @classmethod
    def from_counts(
        cls,
        counts: NDArray[np.int64],
        *,
        unit: str = "character",
        raw: bool = False,
        min_count: int = 1,
        records: bool = False,
        labels: Sequence[str] = (),
        known: "Vocabulary | None" = None,
    ) -> "Vocabulary":
        """Make the vocabulary of a text.

        Args:
            counts: how often each code point occurs in the text.
            unit: "character" or "byte".
            raw: whether the bytes are any bytes, not UTF-8.
            min_count: characters that occur less often are folded.
            records: whether the text consists of records; the marks between them are no characters.
            labels: of the records.
            known: a vocabulary whose characters and labels are included, however rare they are in the text.
        """
        labels = list(dict.fromkeys([*(known.labels if known else ()), *labels])) if records else []
        if unit == "byte":
            return cls(RAW_BYTES if raw else "", unit=unit, records=records, labels=labels)
        counts = np.pad(check_array("counts", counts, (None,), np.int64), (0, max(0, CODE_POINTS - len(counts))))
        counts[0xD800:0xE000] *= not records
        kept, rare = counts >= max(min_count, 1), counts > 0
        if known is not None:
            kept[code_points(known.characters)] = True
            rare[code_points(known.folded)] = True
        characters, folded = (from_code_points(np.flatnonzero(codes)) for codes in (kept, rare & ~kept))
        return cls(characters, folded=folded, records=records, labels=labels)

    @property
    def byte_mode(self) -> bool:
        """True where an id is a byte of UTF-8; a character may consist of several."""
        return self.unit == "byte" and not self.characters

    @property
    def raw(self) -> bool:
        """True where an id is any byte, written as a character of `RAW_BYTES`."""
        return self.unit == "byte" and bool(self.characters)

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for every folded character, or None where nothing was folded."""
        return len(self.characters) if self.folded else None

    @property
    def begin_symbols(self) -> int:
        """How many ids, the last ones, begin a record: the end symbol and those of labels; 0 where there are none."""
        return self.records + len(self.labels)

    @property
    def end_id(self) -> int | None:
        """The id of the end symbol, which stands between two records; None where a text has no records."""
        return len(self) - self.begin_symbols if self.records else None

    def begin_id(self, label: str | None = None) -> int:
        """The id that is read before a record.

        Args:
            label: of the record; None for none.

        Raises:
            SettingError: there is no such label, or there are no records.
        """
        if self.end_id is None:
            raise SettingError("this model has no records: it was trained on running text")
        if label is None:
            return self.end_id
        if label not in self.labels:
            listed = ", ".join(self.labels[:5]) + " …" * (len(self.labels) > 5)
            advice = did_you_mean(label, self.labels) or (f"; it has {listed}" if listed else "; it has none")
            raise SettingError(f"label is {repr_short(label)}: this model has no such label{advice}", "label")
        return self.end_id + 1 + self.labels.index(label)

    def begin_mark(self, label: str | None = None) -> str:
        """The character that stands for `begin_id` in a text of records.

        Args:
            label: of the record; None, or one that the vocabulary does not know, for none.
        """
        return label_mark(self.labels.index(label)) if label in self.labels else END_MARK

    @property
    def default_unknown(self) -> str:
        """What is done with unknown characters by default: "replace" where there is an unknown symbol, else "skip"."""
        return "replace" if self.folded else "skip"

    @property
    def folded_nats(self) -> float:
        """The nats that a folded character costs in addition to the unknown symbol; 0 where nothing was folded.

        The probability of the symbol is divided equally among the F folded characters and one more, which stands for
        all other code points: ln(F + 1). So the probabilities of all 1,114,112 code points (including lone surrogates,
        which a Python text may hold) sum to one, and the folded characters, the only ones in training, lose little.
        """
        return math.log(len(self.folded) + 1)

    @property
    def unseen_nats(self) -> float:
        """The nats that a character that was never seen costs in addition to the unknown symbol.

        All code points neither known nor folded share the probability of one folded character equally.
        """
        return self.folded_nats + math.log(CODE_POINTS - len(self.characters) - len(self.folded))

    def __len__(self) -> int:
        if self.byte_mode:
            return 256 + len(self.labels)
        return len(self.characters) + bool(self.folded) + self.begin_symbols

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return False
        return self.arguments() == other.arguments()

    def arguments(self) -> dict[str, Any]:
        """The arguments that make this vocabulary, as JSON data."""
        named = {"characters": self.characters, "folded": self.folded, "unit": self.unit}
        return named | ({"records": True, "labels": list(self.labels)} if self.records else {})

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Vocabulary({amount(len(self), 'id')}, unit={self.unit!r}, folded={len(self.folded)})"

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds every id."""
        return np.dtype(np.min_scalar_type(max(len(self) - 1, 0)))

    @cached_property
    def _table(self) -> Ids:
        """Code point -> id, V where unknown; the last entry is for all code points above the highest known one."""
        known, folded, marks = code_points(self.characters), code_points(self.folded), code_points(self._marks)
        size = max((*known[-1:], *folded[-1:], *marks, 0)) + 2
        table = np.full(size, len(self), np.min_scalar_type(len(self)))
        table[known] = np.arange(len(known))
        table[folded] = len(known)
        table[marks] = np.arange(len(self) - len(marks), len(self))
        return table

    @cached_property
    def _latin_table(self) -> bytes:
        """Code point below 256 -> id, V where unknown, of at most 255 ids."""
        return self._table.take(np.arange(256), mode="clip").tobytes()

    def _latin_table_of(self, end_mark: str) -> bytes:
        """Code point below 256 -> id, V where unknown, with the end symbol for another character too."""
        place = ord(end_mark)
        return self._latin_table[:place] + bytes([self.begin_id()]) + self._latin_table[place + 1 :]

    @cached_property
    def _marks(self) -> str:
        """The characters that stand for the begin symbols in a text of records."""
        return END_MARK * self.records + "".join(map(label_mark, range(len(self.labels))))

    def knows(self, text: str) -> NDArray[np.bool_]:
        """Find the characters that have an id: their own, that of the unknown symbol as folded ones, or as bytes.

        Args:
            text: of N characters.

        Returns:
            (N,), True where a character has an id.
        """
        codes = code_points(text)
        if self.byte_mode:
            return (codes < 0xD800) | (codes > 0xDFFF) | np.isin(codes, code_points(self._marks))
        return np.not_equal(self._table.take(codes, mode="clip"), len(self))

    def writes(self, text: str) -> bool:
        """Whether every character has an id of its own, or bytes.

        Args:
            text: any.
        """
        return bool(self.knows(text).all()) and set(text).isdisjoint(self.folded)

    def unseen(self, text: str) -> str:
        """List the characters that have no id.

        Args:
            text: of N characters.

        Returns:
            Each of them once, sorted.
        """
        return "".join(sorted(set(itertools.compress(text, ~self.knows(text)))))

    def extra_nats(self, text: str) -> NDArray[np.float64]:
        """Return the nats that characters cost in addition to the unknown symbol that stands for them.

        Args:
            text: of N characters.

        Returns:
            (N,), 0 for characters that have an id of their own.
        """
        if self.unknown_id is None:
            return np.zeros(len(text))
        folded = self.encode(text, "replace") == self.unknown_id
        return np.where(self.knows(text), folded * self.folded_nats, self.unseen_nats)

    def count_ids(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count the ids of a text.

        Args:
            counts: how often each of its code points occurs, all of which have ids; of marks of records too.

        Returns:
            How often each id occurs (V,).
        """
        codes = np.flatnonzero(counts)
        ids = self.encode(from_code_points(codes))
        each = np.repeat(counts[codes], _utf8_sizes(codes)) if self.byte_mode else counts[codes]
        totals = np.zeros(len(self), np.int64)
        np.add.at(totals, ids, each)
        return totals

    def encode(self, text: str, unknown: str = "error", end_mark: str = END_MARK) -> Ids:
        """Convert a text to ids.

        Args:
            text: raw bytes are the characters of `RAW_BYTES`.
            unknown: what to do with a character that has no id: "error", "skip" it, or "replace" it by the unknown
                symbol (where there is one).
            end_mark: the character that stands for the end symbol of records.

        Returns:
            Ids (N,): of the characters, as many as the text has unless some are skipped; or the bytes of its UTF-8.

        Raises:
            DataError: naming the characters that have no id and where they are.
            SettingError: where `unknown` is none of these words.
        """
        check_unknown(unknown)
        check_text("text", text)
        if self.unit == "character" and len(self) < 256 and (latin := latin_bytes(text)) is not None:
            table = self._latin_table if end_mark == END_MARK else self._latin_table_of(end_mark)
            ids = np.frombuffer(latin.translate(table), np.uint8)
            if not (ids == len(self)).any():
                return ids
        text = text if end_mark == END_MARK else text.replace(end_mark, END_MARK)
        if self.unit == "byte":
            return self._encode_records(text, unknown) if self.records else self._encode_bytes(text, unknown)
        codes = code_points(text)
        ids = self._table.take(codes, mode="clip")
        missing = ids == len(self)
        if missing.any():
            if unknown == "skip":
                ids = ids[~missing]
            elif unknown == "replace" and self.unknown_id is not None:
                ids = np.where(missing, self.unknown_id, ids)
            else:
                raise DataError(self._explain_unknown(text, missing, unknown))
        return ids.astype(self.dtype, copy=False)

    def _encode_bytes(self, text: str, unknown: str) -> Ids:
        errors = "surrogateescape" if self.raw else "strict"
        try:
            return np.frombuffer(text.encode("utf-8", errors), np.uint8)
        except UnicodeEncodeError as error:
            if unknown != "skip":
                raise DataError(f"a lone surrogate, position {error.start}, is no character") from error
        kept = (char for char in text if not SURROGATE.match(char) or (self.raw and char in RAW_BYTES))
        return np.frombuffer("".join(kept).encode("utf-8", errors), np.uint8)

    def _encode_records(self, text: str, unknown: str) -> Ids:
        """Bytes, with a begin symbol in place of each mark."""
        codes = code_points(text)
        marks = np.isin(codes, code_points(self._marks))
        data = self._encode_bytes(from_code_points(codes[~marks]), unknown)
        surrogate = (codes >= 0xD800) & (codes <= 0xDFFF)  # none but marks, unless they are skipped
        sizes = np.where(surrogate, 0, _utf8_sizes(codes))
        return np.insert(data.astype(self.dtype), np.cumsum(sizes)[marks], self._table[codes[marks]])

    def _explain_unknown(self, text: str, missing: NDArray[np.bool_], unknown: str) -> str:
        """The message for characters without an id."""
        positions = np.flatnonzero(missing)
        codes, first = np.unique(code_points(text)[positions], return_index=True)
        names = ", ".join(f"{chr(code)!r} (U+{code:04X})" for code in codes[:5].tolist())
        more = f" and {len(codes) - 5} more" if len(codes) > 5 else ""
        if unknown == "replace":
            advice = 'the model has no unknown symbol to replace them with: leave them out with `unknown="skip"`'
        else:
            lookalikes = suggest_lookalikes(text, positions[first[:5]].tolist(), set(self.characters))
            advice = (
                f'{lookalikes}`unknown="skip"` leaves them out; a model trained with `unit="byte"` knows every text'
            )
        return f"unknown to the model: {names}{more}, first at position {positions[0]}; {advice}"

    def decode(self, ids: NDArray[Any]) -> str:
        """Convert ids to a text.

        Args:
            ids: (N,), 0 to V - 1.

        Returns:
            The text, with U+FFFD for the unknown symbol and for broken UTF-8, neither of which a sampler writes, and
            the marks of `encode` for begin symbols.

        Raises:
            ArgumentError: where the ids have another shape, type or range.
        """
        ids = check_array("ids", ids, (None,), np.int64)
        check_range("ids", ids, 0, len(self))
        if self.byte_mode:
            begins = np.flatnonzero(ids >= END_BYTE) if self.records else ids[:0]
            first, *records = np.split(ids, begins)
            texts = [_decode_utf8(first)]
            texts += (self._marks[record[0] - END_BYTE] + _decode_utf8(record[1:]) for record in records)
            return "".join(texts)
        codes = code_points(self.characters + "\ufffd" * bool(self.folded) + self._marks)
        return from_code_points(codes[np.asarray(ids, np.intp)])

    def append(self, partial: bytes, id_: int, backward: bool = False) -> tuple[str, bytes]:
        """Put an id behind those that a text ends with.

        Args:
            partial: in bytes, the unfinished character before it, in the order of the text; else empty.
            id_: the id, not that of the unknown symbol.
            backward: whether the text is written from its end.

        Returns:
            The character that the id completes, "" where bytes are missing; and the unfinished character.
        """
        if not self.byte_mode:
            return self.characters[id_], b""
        byte = bytes([id_])
        partial = byte + partial if backward else partial + byte
        return ("", partial) if utf8_unfinished(partial) else (partial.decode(), b"")

    def count_characters(self, ids: NDArray[Any]) -> int:
        """Count the characters that begin in some ids: bytes that continue a character are not, begin symbols are.

        Args:
            ids: (N,).
        """
        ids = np.asarray(ids)
        if not self.byte_mode:
            return int(ids.size)
        return int(np.count_nonzero(((ids & 0xC0) != 0x80) | (ids > 0xFF)))

    def tokenizer(self) -> "Tokenizer":
        """Make a `tokenizers.Tokenizer` with the same ids, for other programs."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        vocabulary = {name: id_ for id_, name in enumerate(self.names())}
        unknown = UNKNOWN if self.folded else None
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=unknown, fuse_unk=False))
        if self.unit == "byte":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            tokenizer.decoder = decoders.ByteLevel()
        else:
            tokenizer.decoder = decoders.Fuse()
        return tokenizer

    def names(self) -> list[str]:
        """The names of all ids in a `tokenizers` file, in their order."""
        names = _byte_names() if self.unit == "byte" else [*self.characters] + [UNKNOWN] * bool(self.folded)
        names += [END] * (self.records and self.unit == "character")
        return names + [f"<begin {label}>" for label in self.labels]


def check_unknown(unknown: str) -> str:
    """Return what to do with unknown characters: "error", "skip" or "replace".

    Args:
        unknown: must be one of these words.

    Raises:
        SettingError: it is none.
    """
    if unknown not in ("error", "skip", "replace"):
        raise SettingError(f"unknown is {unknown!r}: it must be error, skip or replace", "unknown")
    return unknown


def _utf8_sizes(codes: NDArray[Any]) -> NDArray[np.int64]:
    """The bytes of code points in UTF-8; 1 of surrogates, which stand for a begin symbol."""
    sizes = np.int64(1) + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000)
    return np.where((codes >= 0xD800) & (codes <= 0xDFFF), 1, sizes)


def _decode_utf8(ids: NDArray[Any]) -> str:
    return np.asarray(ids, np.uint8).tobytes().decode("utf-8", "replace")


def _byte_names() -> list[str]:
    """The printable names that byte-level tokenizers use: visible Latin-1 as itself, the rest from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    names, next_code = [], 0x100
    for byte in range(256):
        names.append(chr(byte if byte in visible else next_code))
        next_code += byte not in visible
    return names
