"""A setting checks its own type and range, and says in one line which setting, what value, and what it must be."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading_config import ReadingConfig
from chargen.decoding.choose import SampleConfig
from chargen.errors import SettingError
from chargen.model.config import ModelConfig
from chargen.settings import check_settings, describe_range, resumable_settings, setting, setting_types
from chargen.training.config import TrainConfig

CONFIGS = [ModelConfig, TrainConfig, CorpusConfig, ReadingConfig, SampleConfig]


@dataclasses.dataclass(frozen=True)
class Example:
    whole: int = setting(3, "a whole number", low=1, high=10)
    open_whole: int = setting(3, "a whole number", low=1, resumable=True)
    real: float = setting(0.5, "a number", low=0, below=1)
    positive: float = setting(1.0, "a number", above=0, high=4)
    free: float = setting(0.0, "any number")
    maybe: float | None = setting(None, "a number or none", above=0, resumable=True)
    flag: bool = setting(False, "yes or no")
    word: str = setting("red", "a colour", choices=("red", "green"))
    text: str = setting("", "any text")
    words: tuple[str, ...] = setting((), "texts")
    numbers: tuple[float, ...] = setting((), "numbers", low=0, high=1)

    def __post_init__(self):
        check_settings(self)


def refusal(**values):
    with pytest.raises(SettingError) as caught:
        Example(**values)
    (name,) = values
    message = str(caught.value)
    assert caught.value.setting == name
    assert caught.value.exit_code == 2
    assert message.startswith(f"{name} is ")
    assert len(message.splitlines()) == 1
    return message


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True), st.floats(0, 4, exclude_min=True), st.booleans())
def test_values_in_range_are_kept(whole, real, positive, flag):
    made = Example(whole=whole, real=real, positive=positive, flag=flag)
    assert (made.whole, made.real, made.positive, made.flag) == (whole, real, positive, flag)


@given(st.integers().filter(lambda value: not 1 <= value <= 10))
def test_whole_numbers_out_of_range_are_refused(value):
    assert refusal(whole=value) == f"whole is {value}: it must be 1 to 10"


@given(st.floats().filter(lambda value: not 0 <= value < 1))
def test_numbers_out_of_a_half_open_range_are_refused(value):
    finite = "finite, " * (not math.isfinite(value))
    assert refusal(real=value) == f"real is {value!r}: it must be {finite}at least 0 and less than 1"


@given(st.floats().filter(lambda value: not 0 < value <= 4))
def test_numbers_out_of_the_other_half_open_range_are_refused(value):
    finite = "finite, " * (not math.isfinite(value))
    assert refusal(positive=value) == f"positive is {value!r}: it must be {finite}more than 0 and at most 4"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_must_be_finite_even_without_a_range(value):
    assert refusal(free=value) == f"free is {value}: it must be finite"


def test_bounds_belong_where_they_say():
    assert [Example(whole=value).whole for value in (1, 10)] == [1, 10]
    assert (Example(real=0).real, Example(positive=4).positive) == (0, 4)
    for bad in ({"whole": 0}, {"whole": 11}, {"real": 1}, {"positive": 0}, {"open_whole": 0}):
        refusal(**bad)
    assert Example(open_whole=10**9).open_whole == 10**9


@given(st.integers(-(2**53), 2**53))
def test_whole_numbers_become_floats_where_floats_are_asked(value):
    made = Example(free=value)
    assert made.free == value
    assert type(made.free) is float


@pytest.mark.parametrize(("name", "value"), [("whole", 3.0), ("whole", "3"), ("whole", None), ("whole", True)])
def test_only_a_whole_number_is_a_whole_number(name, value):
    assert refusal(**{name: value}) == f"whole is {value!r}: it must be a whole number"


@pytest.mark.parametrize("value", ["0.5", None, True, False, [0.5], 1j])
def test_only_a_number_is_a_number(value):
    assert refusal(real=value) == f"real is {value!r}: it must be a number"


@pytest.mark.parametrize("value", [0, 1, "true", None, 1.0])
def test_only_true_and_false_are_booleans(value):
    assert refusal(flag=value) == f"flag is {value!r}: it must be true or false"


@pytest.mark.parametrize("value", [1, None, b"red", ["red"], True])
def test_only_text_is_text(value):
    assert refusal(word=value) == f"word is {value!r}: it must be text"


@given(st.text().filter(lambda value: value not in ("red", "green")))
def test_a_choice_must_be_one_of_its_words(value):
    assert refusal(word=value) == f"word is {value!r}: it must be one of red, green"
    assert Example(text=value).text == value


def test_none_is_a_value_only_where_it_may_be():
    assert Example(maybe=None).maybe is None
    assert Example(maybe=2).maybe == 2.0
    refusal(maybe=0)
    refusal(maybe="2")
    for name in ("whole", "real", "flag", "word", "words"):
        refusal(**{name: None})


@given(st.lists(st.text(max_size=3)))
def test_lists_become_tuples(values):
    assert Example(words=values).words == tuple(values)
    assert hash(Example(words=values)) == hash(Example(words=tuple(values)))


@pytest.mark.parametrize("value", ["ab", {"a"}, {"a": 1}, 5])
def test_a_single_text_is_no_list_of_texts(value):
    assert refusal(words=value) == f"words is {value!r}: it must be a list"


def test_every_member_of_a_list_is_checked():
    assert refusal(words=("a", 1)) == "words is 1: it must be text"
    assert refusal(numbers=[0.5, 2.0]) == "numbers is 2.0: it must be 0 to 1"


def test_whole_numbers_in_a_list_become_floats():
    assert [type(value) for value in Example(numbers=[0, 1]).numbers] == [float, float]


@pytest.mark.parametrize("name", ["whole", "free", "real", "positive", "maybe"])
@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_a_number_beyond_all_floats_is_refused_like_any_other(name, value):
    refusal(**{name: value})


def test_a_whole_number_without_an_upper_bound_may_be_beyond_all_floats():
    assert Example(open_whole=10**400).open_whole == 10**400
    refusal(open_whole=-(10**400))


@pytest.mark.parametrize("value", [np.int64(3), np.int32(3)])
def test_a_whole_number_of_numpy_is_a_whole_number(value):
    made = Example(whole=value, free=value)
    assert (made.whole, made.free) == (3, 3.0)
    assert (type(made.whole), type(made.free)) == (int, float)


def test_types_are_read_from_the_annotations():
    kinds = setting_types(Example)
    assert kinds["whole"] == (int, False, False)
    assert kinds["maybe"] == (float, True, False)
    assert kinds["words"] == (str, False, True)


def test_resumable_settings_are_those_marked_so():
    assert resumable_settings(Example) == {"open_whole", "maybe"}
    assert {"batch_size", "seq_length", "batching", "seed"}.isdisjoint(resumable_settings(TrainConfig))
    assert {"steps", "lr", "minutes", "device"} <= resumable_settings(TrainConfig)


BOUNDED = [
    pytest.param(cls, field, id=f"{cls.__name__}.{field.name}")
    for cls in CONFIGS
    for field in dataclasses.fields(cls)
    if any(field.metadata[key] is not None for key in ("low", "above", "high", "below"))
]


def neighbour(value, way):
    """The next value below (-1) or above (1), or the value itself (0)."""
    return value + way if type(value) is int or way == 0 else math.nextafter(value, way * math.inf)


@pytest.mark.parametrize(("cls", "field"), BOUNDED)
def test_every_bound_in_the_package_is_kept(cls, field):
    """The last value inside is taken, the first one outside is refused by name, value and range."""
    kind, rules = setting_types(cls)[field.name][0], field.metadata
    for key, inside, outside in [("low", 0, -1), ("above", 1, 0), ("high", 0, 1), ("below", -1, 0)]:
        if rules[key] is None:
            continue
        good, bad = (neighbour(kind(rules[key]), way) for way in (inside, outside))
        room = {"test_fraction": {"valid_fraction": 0}, "split_seed": {"records": "line"}}.get(field.name, {})
        assert getattr(cls(**{field.name: good, **room}), field.name) == good
        with pytest.raises(SettingError) as caught:
            cls(**{field.name: bad})
        assert caught.value.setting == field.name
        assert str(caught.value) == f"{field.name} is {bad!r}: it must be {describe_range(rules)}"


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_setting_has_help_and_a_default_that_it_accepts(cls):
    made = cls()
    assert dataclasses.replace(made) == made
    without = {field.name for field in dataclasses.fields(cls) if not field.metadata["help"]}
    assert without == ({"begin_symbols"} if cls is ModelConfig else set())  # which the vocabulary says
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(cls)[0].name, 1)


def test_steps_and_epochs_are_one_budget_and_none_means_five_minutes():
    assert TrainConfig().minutes == 5
    assert TrainConfig(steps=7).minutes is None
    assert TrainConfig(epochs=0.5).minutes is None
    both = TrainConfig(minutes=2, steps=7)
    assert (both.minutes, both.steps) == (2, 7)
    with pytest.raises(SettingError, match=r"^epochs 1\.5 and steps 7 are one budget twice: give one$"):
        TrainConfig(epochs=1.5, steps=7)
