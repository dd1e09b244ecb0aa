"""What is wrong with a text, or might better be changed before a model learns it; each a line that says what to do.

Settings are named in backticks, as in errors.
"""

import codecs

from chargen.counting.characters import CharacterCount
from chargen.counting.text_facts import TextFacts
from chargen.data.corpus import Corpus
from chargen.errors import amount

SMALL_TEXT = 100_000
"""Characters below which a text is too small to teach much."""
REPEATED, REPEATED_IN_TRAIN = 0.1, 0.3
"""Shares of repeated text that are worth a warning: ordinary texts reach 2 %, some logs more."""
REPEATED_RECORDS = 0.1
"""The same of records that stand there more than once."""
MAX_KINDS = 8
"""Different characters that fit in a command which removes them."""


def warn_of_parts(corpus: Corpus) -> list[str]:
    """Say what makes a validation loss mean something else than it seems to, or that there is none.

    Args:
        corpus: the text.
    """
    warnings = []
    if len(corpus.valid) < 2:
        warnings.append("too little text to validate on: the last weights are kept, not the best")
    for role, word in (("valid", "validation"), ("test", "test")):
        if (share := corpus.repeated[role]) >= REPEATED:
            before = "in an earlier part" if role == "test" else "in the training text"
            warnings.append(
                f"{share:.0%} of the {word} text stands {before} too: its loss tells what was learned by heart"
            )
    if (share := corpus.repeated["train"]) >= REPEATED_IN_TRAIN:
        warnings.append(f"{share:.0%} of the training text stands there twice: is a file given twice?")
    if corpus.sorted_lines:
        lines, advice = "lines", 'learn them as records (`records="line"`), or shuffle them first (shuf)'
        if corpus.vocabulary.records:
            lines, advice = "records", "leave out `shuffle=False`"
        warnings.append(
            f"the {lines} are sorted, so the validation part, at the end, holds other words than the training "
            f"part, and its loss is too high: {advice}"
        )
    return warnings


def warn_of_size(corpus: Corpus) -> list[str]:
    """Say that a text is too small to teach much.

    Args:
        corpus: the text.
    """
    if len(corpus.train) >= SMALL_TEXT:
        return []
    return [
        f"{amount(len(corpus.train), corpus.vocabulary.unit)} to learn from are few: the model will "
        f"rather learn them by heart; {SMALL_TEXT:,} and more teach it better"
    ]


def warn_of_text(corpus: Corpus, facts: TextFacts) -> list[str]:
    """Say what in a text is probably not meant to be learned.

    Args:
        corpus: the text.
        facts: what was found in it.
    """
    warnings = []
    if corpus.report.replaced:
        warnings.append(
            f"{amount(corpus.report.replaced, 'byte')} did not fit the encoding and became U+FFFD: is it another one?"
        )
    elif facts.characters and facts.characters.replaced:
        warnings.append(
            f"U+FFFD occurs {amount(facts.characters.replaced, 'time')}: it stands for what another program could not "
            "read; look for a better copy of the text"
        )
    if facts.not_nfc:
        codes = " ".join(f"U+{ord(character):04X}" for character in facts.not_nfc[:4])
        warnings.append(
            f'the same characters can stand there in several forms (not in NFC, such as {codes}): `normalize="NFC"` '
            "makes them one"
        )
    returns = [f"{name} {count:,}" for name, count in facts.line_ends.items() if name in ("LF", "CR LF", "CR")]
    if len(returns) > 1 and not corpus.vocabulary.raw:
        warnings.append(f'line ends are mixed ({_listed(returns)}): `newline="lf"` makes all of them LF')
    if facts.characters:
        for name, counts in (("control", facts.characters.controls), ("invisible", facts.characters.invisible)):
            if counts:
                warnings.append(_warn_of_hidden(name, counts, corpus.config.encoding))
    if corpus.vocabulary.records and facts.lines.repeated >= REPEATED_RECORDS * max(facts.lines.compared, 1):
        share = facts.lines.repeated / facts.lines.compared
        warnings.append(
            f"{share:.0%} of the records have stood there before; where that says nothing about how common they "
            "are, leave each in once (sort -u)"
        )
    return warnings


def _warn_of_hidden(name: str, counts: tuple[CharacterCount, ...], encoding: str) -> str:
    number = sum(each.count for each in counts)
    codes = [f"U+{ord(each.character):04X}" for each in counts]
    pattern = "".join(f"\\x{{{ord(each.character):x}}}" for each in counts)
    advice = f"without them: perl -CSD -pe 's/[{pattern}]//g'" if len(counts) <= MAX_KINDS else "remove them first"
    if codecs.lookup(encoding).name == "iso8859-1" and all("\x80" <= each.character < "\xa0" for each in counts):
        advice = 'they are quotes and dashes where the text is `encoding="cp1252"`'
    return (
        f"{amount(number, f'{name} character')} ({', '.join(codes[:3])}{' …' * (len(codes) > 3)}), which the model "
        f"would learn too; {advice}"
    )


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]
