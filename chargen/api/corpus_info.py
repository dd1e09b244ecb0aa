"""What is in a text, what simple models make of it, and what `train` would choose for it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chargen.counting.baselines import Baselines, measure_baselines
from chargen.counting.corpus_warnings import warn_of_parts, warn_of_size, warn_of_text
from chargen.counting.ngram import MAX_ORDER, NGram
from chargen.counting.text_facts import TextFacts, read_facts
from chargen.data.begin import begin_text
from chargen.data.corpus import Corpus, SourceNames
from chargen.data.corpus_cache import ROLES
from chargen.data.corpus_config import CorpusConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.records import MARK
from chargen.errors import SettingError, amount
from chargen.rng import check_seed
from chargen.settings import check_settings, drop_none, setting
from chargen.training.autosize import Sizes, fit_sizes
from chargen.training.plan import check_parts

LAST_LINE = 100_000
"""Ids at the end of the training part among which a line end is looked for."""


@dataclass(frozen=True)
class InfoConfig:
    """What `corpus_info` looks at beside the text itself."""

    minutes: float | None = setting(None, "tell what train would choose for this budget; this machine is timed for "
                                    "some seconds", above=0, high=10_000_000)  # fmt: skip
    order: int = setting(8, "characters of the longest n-grams", low=1, high=MAX_ORDER)
    sample: int = setting(300, "characters that the longest n-grams write", low=0, high=100_000)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Part:
    """The size of a part of a text.

    Args:
        ids: how many there are.
        characters: how many; the beginnings of records count as such.
        records: how many; 0 for running text.
    """

    ids: int
    characters: int
    records: int


@dataclass(frozen=True, repr=False)
class CorpusInfo:
    """What `corpus_info` tells of a text.

    Args:
        sources: the names it was read from, as absolute paths, by role: "train", "valid" and "test".
        report: what reading met, such as the number of files and bytes.
        hidden_entries: entries of folders that were not read: hidden files, links to folders, files of runs.
        config: how the text became ids.
        vocabulary_size: how many ids there are.
        folded: how many rare characters share the unknown symbol.
        parts: the sizes of "train", "valid" and "test".
        labels: of records, how many have each; "" is no label.
        facts: characters, lines, line ends, normal form.
        sorted_lines: whether the validation part is the end of a sorted list.
        repeated: the share of "valid" and "test" that stands in an earlier part in pieces of 200 ids, and of "train"
            that stands in it twice.
        baselines: what the validation part costs simple models; None where there is none.
        sample: what the longest n-grams write.
        sizes: what `train` would choose, on request.
        warnings: what might be wrong with the text, each with what to do.
    """

    sources: dict[str, list[str]]
    report: ReadingReport
    hidden_entries: int
    config: CorpusConfig
    vocabulary_size: int
    folded: int
    parts: dict[str, Part]
    labels: dict[str, int]
    facts: TextFacts
    sorted_lines: bool
    repeated: dict[str, float]
    baselines: Baselines | None
    sample: str
    sizes: Sizes | None
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        described = [amount(sum(part.characters for part in self.parts.values()), "character")]
        if self.facts.characters:
            described.append(f"{self.facts.characters.distinct:,} distinct")
        if self.baselines:
            described += [f"{row.name} {row.nats_per_character:.4f}" for row in self.baselines.rows]
        unit = " nats per character" * (self.baselines is not None)
        return f"CorpusInfo({', '.join(described)}{unit}, {amount(len(self.warnings), 'warning')})"

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON data; baselines have their bits per character beside."""
        described = asdict(self)
        if self.baselines:
            for row, entry in zip(self.baselines.rows, described["baselines"]["rows"], strict=True):
                entry["bits_per_character"] = row.bits_per_character
        return described


def corpus_info(
    sources: SourceNames | Corpus,
    *,
    valid: SourceNames = (),
    test: SourceNames = (),
    minutes: float | None = InfoConfig.minutes,
    order: int = InfoConfig.order,
    sample: int = InfoConfig.sample,
    seed: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda task, done, total: None,
    **settings: Any,
) -> CorpusInfo:
    """Tell what is in a text before a model learns it: what it consists of, what simple models make of it.

    The text is read, and split, as `train` reads and splits it.

    Args:
        sources: files, folders, patterns, `-` (standard input) or names of corpora; or a Corpus.
        valid: a text to validate on, instead of a part.
        test: a text to test on, instead of a part.
        minutes: tell what `train` would choose for this budget; for that the machine is timed for some seconds.
        order: of the longest n-grams, 1 to 100: so many characters, the predicted one among them.
        sample: how many characters these n-grams write.
        seed: of these characters.
        progress: called now and then with a task, what is done of it, and the total where it is known.
        **settings: fields of CorpusConfig, such as `unit="byte"` or `records="line"`.

    Raises:
        DataError: a text cannot be read.
        SettingError: a setting is unknown or out of range, or contradicts another.
    """
    config, seed = InfoConfig(minutes, order, sample), check_seed(seed)
    corpus = _read(sources, valid, test, progress, drop_none(settings))
    vocabulary = corpus.vocabulary
    facts = read_facts(corpus, progress)
    baselines, model = measure_baselines(corpus, config.order, progress)
    sizes = None
    if config.minutes is not None and len(corpus.train) >= 2:
        progress("timing this machine", 0, None)
        sizes = fit_sizes(corpus, {}, {"minutes": config.minutes})
    counts = np.sum(list(corpus.counts_by_role.values()), 0).tolist()
    labels = ["", *vocabulary.labels] if vocabulary.labels else []
    return CorpusInfo(
        sources=corpus.sources,
        report=corpus.report,
        hidden_entries=corpus.hidden_entries,
        config=corpus.config,
        vocabulary_size=len(vocabulary),
        folded=len(vocabulary.folded),
        parts={role: _measure(corpus, role) for role in ROLES},
        labels=dict(zip(labels, counts[len(counts) - len(labels) :], strict=True)),
        facts=facts,
        sorted_lines=corpus.sorted_lines,
        repeated=corpus.repeated,
        baselines=baselines,
        sample=_write(model, corpus, config, seed),
        sizes=sizes,
        warnings=(*warn_of_size(corpus), *warn_of_parts(corpus), *warn_of_text(corpus, facts)),
    )


def _read(
    sources: SourceNames | Corpus,
    valid: SourceNames,
    test: SourceNames,
    progress: Callable[[str, int, int | None], None],
    settings: Mapping[str, Any],
) -> Corpus:
    """Read the text, where it is not a corpus already."""
    if not isinstance(sources, Corpus):
        check_parts(settings, valid, test)
        return Corpus.from_files(sources, valid=valid, test=test, progress=progress, **settings)
    if valid or test or settings:
        raise SettingError("a Corpus is read and split already: leave out `valid`, `test` and the settings of texts")
    return sources


def _measure(corpus: Corpus, role: str) -> Part:
    ids = getattr(corpus, role)
    characters = sum(
        corpus.vocabulary.count_characters(ids[start : start + (1 << 24)]) for start in range(0, len(ids), 1 << 24)
    )
    return Part(len(ids), characters, corpus.count_records(role))


def _write(model: NGram, corpus: Corpus, config: InfoConfig, seed: int) -> str:
    """A text by n-grams, that goes on from the last line of the training part; or records, a line each."""
    vocabulary = corpus.vocabulary
    if not (config.sample and len(corpus.train)):
        return ""
    context = corpus.train[-LAST_LINE:]
    if vocabulary.end_id is not None:
        context = corpus.train[:1]
    elif begin := begin_text(vocabulary, corpus.counts):
        ends = np.flatnonzero(context == vocabulary.encode(begin)[-1])
        context = context[: ends[-1] + 1] if len(ends) else context
    text = vocabulary.decode(model.sample(config.sample, seed, context[-config.order :].tolist()))
    return MARK.sub("\n", text) if vocabulary.records else text
