"""A score that adds counts of what was scored before."""

from dataclasses import replace

import numpy as np

from chargen.counting.growing_counts import mix_growing_counts
from chargen.counting.mixture import Mixture, find_targets
from chargen.counting.recorder import Recorder
from chargen.data.borders import as_targets
from chargen.data.vocabulary import Vocabulary
from chargen.evaluation.evaluation import Evaluation
from chargen.kernels import available


def add_dynamic_counts(
    result: Evaluation, recorder: Recorder, mixture: Mixture | None, vocabulary: Vocabulary
) -> Evaluation:
    """Mix counts of what was scored before into a score.

    Args:
        result: the score without them.
        recorder: has seen the network score the text.
        mixture: the model's counts of its training text; None where it has none.
        vocabulary: the model's.
    """
    ids, (places, nats, network, entropies) = recorder.ids, recorder.in_order()
    others, lengths = [np.exp(-nats)], np.zeros(len(nats), np.int64)
    if mixture:
        tree = mixture.compiled[0] if available() else None
        counted, lengths = find_targets(mixture.tree, ids, places, mixture.longest, tree)
        others += [np.exp(-network), counted]
    saved = nats - mix_growing_counts(ids, np.stack(others), entropies, lengths, len(vocabulary), vocabulary.end_id)
    ends = as_targets(ids[places], vocabulary.end_id) == vocabulary.end_id
    return replace(
        result,
        nats=result.nats - float(saved.sum()),
        end_nats=result.end_nats - float(saved[ends].sum()),
        dynamic_counts=True,
    )
