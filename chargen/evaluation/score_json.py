"""Scores as values of JSON."""

from typing import Any

from chargen.data.utf8 import as_json_text
from chargen.evaluation.per_character import Scores
from chargen.evaluation.predicted_ids import JUDGES


def describe_scores(scores: Scores, raw: bool, brief: bool = False) -> dict[str, Any]:
    """Describe the scores of a text: totals, the text once, each judge's log-probabilities, and alternatives.

    Args:
        scores: of a text.
        raw: whether lone surrogates in it are bytes.
        brief: totals only.

    Returns:
        Values by name: `by` and `threshold`, those of `Scores.totals`, `text`, a list of log-probabilities for each
        judge, to three decimals, or two where there are several, and the alternatives of unlikely characters by their
        position.
    """
    figures = {"by": scores.by, "threshold": scores.threshold, **scores.totals}
    if brief:
        return figures
    columns = {name: [getattr(score, name) for score in scores] for name in JUDGES}
    judges = [name for name, column in columns.items() if any(value is not None for value in column)]
    digits = 3 if len(judges) < 2 else 2
    lists = {name: [value if value is None else round(value, digits) for value in columns[name]] for name in judges}
    alternatives = {
        at: {as_json_text(character, raw): float(f"{share:.2g}") for character, share in score.alternatives}
        for at, score in enumerate(scores)
        if score.unlikely
    }
    text = as_json_text("".join(score.character for score in scores), raw)
    return {**figures, "text": text, **lists, "alternatives": alternatives}
