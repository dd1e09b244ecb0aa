"""How a text becomes ids in three parts: the settings."""

from dataclasses import dataclass

from chargen.data.reading_config import RAW, ReadingConfig
from chargen.data.sources import SourceFilter
from chargen.data.vocabulary import UNITS
from chargen.errors import SettingError
from chargen.rng import MAX_SEED
from chargen.settings import setting


@dataclass(frozen=True)
class CorpusConfig(ReadingConfig):
    """How a text becomes ids, and how it is split into train, valid and test."""

    unit: str = setting("character", "what an id stands for; bytes know every text", choices=UNITS)
    min_count: int = setting(1, "characters rarer than this share one unknown symbol", low=1)
    valid_fraction: float = setting(0.1, "share of the text, after the training part, or of records, that validates",
                                    low=0, below=1)  # fmt: skip
    test_fraction: float = setting(0.0, "share of the text, at its end, or of records, that tests", low=0, below=1)
    shuffle: bool = setting(True, "records: split them by a hash of their text and learn them in random order; or keep "
                            "their order, as of running text")  # fmt: skip
    include: tuple[str, ...] = setting((), "of folders and archives, read only files whose names fit this pattern, "
                                       "such as *.txt; where it has a /, the ends of their paths; may stand several "
                                       "times")  # fmt: skip
    exclude: tuple[str, ...] = setting((), "of folders and archives, leave out files whose names fit this pattern, "
                                       "or, where it has a /, the ends of whose paths do")  # fmt: skip
    max_bytes: int | None = setting(None, "bytes that a packed file may unpack to; by default its own times 1,000",
                                    low=1)  # fmt: skip
    split_seed: int = setting(0, "records: another number makes other parts", low=0, high=MAX_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "byte" and self.min_count > 1:
            raise SettingError(f"min_count is {self.min_count}: bytes are never folded, so it must be 1", "min_count")
        if self.encoding == RAW and self.unit != "byte":
            raise SettingError('encoding is raw: it needs `unit="byte"`', "encoding")
        if self.valid_fraction + self.test_fraction >= 1:
            raise SettingError(
                f"valid_fraction {self.valid_fraction} and `test_fraction` {self.test_fraction} leave no text to learn",
                "valid_fraction",
            )
        for name, unused in (("shuffle", not self.shuffle), ("split_seed", self.split_seed)):
            if unused and (self.records is None or (name == "split_seed" and not self.shuffle)):
                raise SettingError(f"{name} is for records that are split by a hash: leave it out", name)

    @property
    def by_hash(self) -> bool:
        """Whether a record's part is decided by a hash of its text."""
        return self.records is not None and self.shuffle

    @property
    def filter(self) -> SourceFilter:
        """Which files of folders and archives are read."""
        return SourceFilter(self.include, self.exclude, self.max_bytes)

    @property
    def fractions(self) -> dict[str, float]:
        """The shares of the parts that are cut off the training text, by role."""
        return {"valid": self.valid_fraction, "test": self.test_fraction}
