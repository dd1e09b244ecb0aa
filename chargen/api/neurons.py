"""Find hidden units that mean something, in one call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chargen.api.activations import open_blocks
from chargen.api.texts import Path
from chargen.errors import SettingError
from chargen.insight.activations import Activations
from chargen.insight.features import text_features
from chargen.insight.neurons import NUM, OF_EACH, Neurons, rank_units
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    from chargen.model.language_model import CharModel


def rank_neurons(
    model: "Activations | CharModel | ModelFile | Path",
    text: Path | Sequence[str] | None = None,
    *,
    patterns: Mapping[str, str] | None = None,
    num: int = NUM,
    of_each: int = OF_EACH,
    direction: str = "forward",
    **settings: Any,
) -> Neurons:
    """Rank the hidden units of a model by what they tell of a text: that it is quoted, how long its line is.

    Features are the length of the line, the place in it, its indentation, double, single and triple quotes, brackets,
    upper case, beginnings of words; of many texts, which are records, the place in the record and its label; and what
    regular expressions match. For each feature, the hidden units of the highest correlation on the first half of the
    text are measured on the second half.

    Args:
        model: the path of a model file or a run folder, a model's name, what `read_model` returned, or a CharModel; or
            activations of a text.
        text: a str is the text itself, a Path a file, and a list holds many texts.
        patterns: regular expressions by name, such as {"number": "[0-9]+"}.
        num: how many hidden units to name, each once, by the feature that it tells best.
        of_each: how many of them tell the same feature, while there are others.
        direction: "forward"; or "backward", where the model reads both ways.
        **settings: of `stream_activations`, such as `sources`, `label` and `device`.

    Returns:
        The strongest first.

    Raises:
        SettingError: an argument is out of range, or a pattern is no regular expression.
        DataError: a text cannot be read, has unknown characters and `unknown` is "error", or has a lone surrogate.
        ModelFileError: there is no model file, or it is damaged or contradicts itself.
        ChargenError: hidden states are not finite.
    """
    if isinstance(model, Activations):
        if text is not None or settings or direction not in ("forward", model.direction):
            raise SettingError("activations have a text and a direction already: give none", "text")
        texts, labels, direction = [model[number].text for number in range(len(model))], None, model.direction
        blocks: Iterable[Activations] = [model]
    else:
        texts, labels, blocks = open_blocks(model, text, direction=direction, **settings)
    features = text_features(texts, labels=labels, patterns=patterns, direction=direction)
    return rank_units(blocks, features, num=num, of_each=of_each)
