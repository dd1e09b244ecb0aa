"""Requests as other programs send them: values of JSON, checked; text only, so that no request opens a file."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from chargen.counting.context_tree import MAX_ORDER
from chargen.decoding.choose import WRITING_DEFAULTS, SampleConfig
from chargen.errors import SettingError, amount, repr_short
from chargen.evaluation.predicted_ids import JUDGES
from chargen.infill.fill import PARTICLES
from chargen.infill.template import MARKER
from chargen.rng import MAX_SEED
from chargen.settings import check_settings, drop_none, make_settings, setting
from chargen.suggestions import did_you_mean

MAX_TEXT = 100_000
"""Characters of any text in a request."""
MAX_LENGTH = 1_000_000
"""Characters that a request may ask for, over all samples."""
MAX_NUM = 100
MAX_STOP = 1_000
"""Characters of all stop texts together: each takes a row of a table as wide as the vocabulary."""
MAX_GAP = 1_000
MAX_PARTICLES = 1_000
MAX_ID = 100
"""Characters of an id."""
UNKNOWN = ("error", "skip", "replace")
Id: TypeAlias = str | int | None


class RequestError(SettingError):
    """What was sent is no request, so that nothing can be said of its settings."""


@dataclass(frozen=True)
class GenerateRequest(SampleConfig):
    """Write text, as `chargen.generate` does; with `stream` in pieces, as it is written."""

    temperature: float = setting(WRITING_DEFAULTS["temperature"], "", low=0)
    counts_max_copy: int = setting(WRITING_DEFAULTS["counts_max_copy"], "", low=0, high=MAX_ORDER - 1)
    prime: str = setting("", "")
    length: int | None = setting(None, "", low=0, high=MAX_LENGTH)
    num: int | None = setting(None, "", low=1, high=MAX_NUM)
    seed: int | None = setting(None, "", low=0, high=MAX_SEED)
    reverse: bool = setting(False, "")
    echo: bool = setting(True, "")
    unknown: str = setting("error", "", choices=UNKNOWN)
    label: str | None = setting(None, "")
    unique: bool = setting(False, "")
    best_of: int = setting(1, "", low=1, high=MAX_NUM)
    stream: bool = setting(False, "")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_texts(self)
        if (self.length or 0) * (self.num or 1) > MAX_LENGTH:
            asked = f"length is {self.length:,} and num {self.num}"
            raise SettingError(f"{asked}: a request writes {MAX_LENGTH:,} characters at most", "length")
        if self.stream and self.reverse:
            raise SettingError("`stream` and `reverse` contradict each other: a text written from its end comes whole")


@dataclass(frozen=True)
class ScoreRequest:
    """Score every character of a text, as `chargen.score` does; `brief` leaves all but the totals out."""

    text: str | None = setting(None, "")
    label: str | None = setting(None, "")
    by: str | None = setting(None, "", choices=JUDGES)
    threshold: float = setting(0.01, "", low=0, high=1)
    num_alternatives: int = setting(3, "", low=0, high=MAX_NUM)
    unknown: str | None = setting(None, "", choices=UNKNOWN)
    brief: bool = setting(False, "")

    def __post_init__(self) -> None:
        check_settings(self)
        _check_texts(self)
        if self.text is None:
            raise SettingError("give `text`, which is to be scored", "text")

    @property
    def shared(self) -> tuple[Any, ...]:
        """What requests have in common whose texts are read side by side."""
        return self.by, self.threshold, self.num_alternatives, self.unknown


@dataclass(frozen=True)
class FillRequest(SampleConfig):
    """Fill the gaps of a text, as `chargen.fill_text` does, or the gap between `before` and `after`."""

    text: str | None = setting(None, "")
    before: str | None = setting(None, "")
    after: str | None = setting(None, "")
    length: int | None = setting(None, "", low=0, high=MAX_GAP)
    min_length: int | None = setting(None, "", low=0, high=MAX_GAP)
    max_length: int | None = setting(None, "", low=0, high=MAX_GAP)
    marker: str = setting(MARKER, "")
    num: int = setting(1, "", low=1, high=MAX_NUM)
    seed: int | None = setting(None, "", low=0, high=MAX_SEED)
    particles: int = setting(PARTICLES, "", low=1, high=MAX_PARTICLES)
    unknown: str = setting("error", "", choices=UNKNOWN)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_texts(self)
        if (self.text is None) == (self.before is None and self.after is None):
            raise SettingError("give `text` with gaps, or `before` and `after`: one of the two ways", "text")


@dataclass(frozen=True)
class CancelRequest:
    """Give up the request that has the id `request`, unless it is answered already."""

    request: Id = None


@dataclass(frozen=True)
class InfoRequest:
    """Tell what the model is."""


Request: TypeAlias = GenerateRequest | ScoreRequest | FillRequest | CancelRequest | InfoRequest
KINDS: dict[str, type[Request]] = {
    "generate": GenerateRequest, "score": ScoreRequest, "fill": FillRequest, "info": InfoRequest,
    "cancel": CancelRequest,
}  # fmt: skip
"""Requests by what they say they `do`."""


def make_request(values: Any) -> Request:
    """Check a request.

    Args:
        values: what JSON holds: an object with "do" and the settings of that kind of request, and an "id" or none. A
            setting that is null is as good as left out.

    Raises:
        RequestError: it is none.
        SettingError: a setting is missing, unknown, of another type or out of range.
    """
    if not isinstance(values, Mapping):
        raise RequestError(f"a request is an object: this is {repr_short(values)}")
    if "id" in values and not is_id(values["id"]):
        raise RequestError(f"id is {repr_short(values['id'])}: it must be a short text or a whole number", "id")
    kind = values.get("do")
    if not isinstance(kind, str) or kind not in KINDS:
        advice = (did_you_mean(kind, KINDS) if isinstance(kind, str) else "") or f"; there are {', '.join(KINDS)}"
        problem = "a request says what to do" if kind is None else f"do is {repr_short(kind)}"
        raise RequestError(f"{problem}{advice}", "do")
    settings = drop_none({name: value for name, value in values.items() if name not in ("id", "do")})
    if kind == "cancel" and not is_id(settings.get("request")):
        raise SettingError(f"request is {repr_short(settings['request'])}: it must be an id", "request")
    return make_settings(KINDS[kind], settings)


def is_id(value: Any) -> bool:
    """Whether a value may be the id of a request: null, a text of at most 100 characters, or a number of 64 bits.

    Args:
        value: any.
    """
    if isinstance(value, str):
        return len(value) <= MAX_ID
    return value is None or (type(value) is int and abs(value) < 2**63)


def sample_config(request: SampleConfig) -> SampleConfig:
    """How the characters of a request are chosen.

    Args:
        request: one that has these settings, among others.
    """
    return SampleConfig(**{field.name: getattr(request, field.name) for field in fields(SampleConfig)})


def _check_texts(request: Any) -> None:
    """Check that the texts of a request are no longer than they may be."""
    for field in fields(request):
        value = getattr(request, field.name)
        size, most = (len(value), MAX_TEXT) if isinstance(value, str) else (0, 0)
        if isinstance(value, tuple):
            size, most = sum(map(len, value)), MAX_STOP
        if size > most:
            problem = f"{field.name} has {amount(size, 'character')}: it must have at most {most:,}"
            raise SettingError(f"{problem}; cut it, or send it in parts", field.name)
