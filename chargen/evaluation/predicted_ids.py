"""What a model expects at every id of texts: from the ids before it, from those behind it, and from both."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chargen.data.borders import as_targets
from chargen.errors import NOT_FINITE_MESSAGE, ChargenError
from chargen.evaluation.layout import Layout
from chargen.evaluation.mixed_rows import MixedRows
from chargen.storage.model_file import ModelFile

if TYPE_CHECKING:
    from chargen.evaluation.rows import Networks

JUDGES = ("cloze", "forward", "backward")
LOGITS = 2**22
"""Logits that are computed at a time."""


class Predicted(NamedTuple):
    """What a judge expects at some ids.

    Args:
        judge: "cloze", "forward" or "backward".
        characters: (n,), for each id the number of its character in the layout.
        targets: (n,), the id that stands there; a begin symbol counts as the end symbol.
        log_probs: (n, V), in nats; a tensor on the device of the model, or an array of NumPy.
        values: (n,), those of the targets, less what their characters cost besides.
    """

    judge: str
    characters: NDArray[np.int64]
    targets: NDArray[Any]
    log_probs: Any
    values: NDArray[np.float64]

    def rows(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """The log-probabilities (k, V) of some ids, as NumPy has them.

        Args:
            places: (k,), numbers of ids from 0 to n - 1.
        """
        rows: Any = self.log_probs[places]
        return rows if isinstance(rows, np.ndarray) else rows.cpu().double().numpy()


def mixed_rows(file: ModelFile, layout: Layout) -> dict[str, MixedRows]:
    """The counts that predict the ids of a layout beside a network, by direction.

    Args:
        file: the model.
        layout: of texts; laid out for "both" where the model reads both ways.
    """
    rows = {"forward": layout.rows, "backward": [row[::-1] for row in layout.behind]}
    return {direction: MixedRows(mixture, rows[direction]) for direction, mixture in file.mixtures.items()}


def predict_ids(
    networks: "Networks",
    file: ModelFile,
    texts: Sequence[str],
    layout: Layout,
    *,
    precision: str,
    progress: Callable[[str, int, int], object] = lambda task, done, total: None,
) -> Iterator[Predicted]:
    """Read texts side by side and predict every id by every judge of the model.

    Args:
        networks: of the model.
        file: its vocabulary, and how often each id occurs.
        texts: cleaned as the text that the model learned.
        layout: of these texts; of a model that reads both ways laid out for "both", else for "forward".
        precision: "fp32" or "bf16".
        progress: called after every window with the task, the number of characters read, and that of all texts.

    Yields:
        For some ids after the other, the prediction of each judge.

    Raises:
        ChargenError: predictions are not finite.
    """
    import torch

    from chargen.evaluation.rows import predict, read_together
    from chargen.model.device import autocast
    from chargen.model.loss import average_log_probs

    both, vocabulary, joined = file.config.bidirectional, file.vocabulary, "".join(texts)
    block = max(1, LOGITS // len(vocabulary))
    extra = np.append(vocabulary.extra_nats(joined), np.zeros(2 * len(texts)))
    direction, behind, done = "both" if both else "forward", layout.behind or None, 0
    settings: dict[str, Any] = {"direction": direction, "counted": layout.counted, "behind": behind}
    mixed = mixed_rows(file, layout)
    sizes = np.array(list(map(len, layout.rows)), np.int64)
    for reads in read_together(networks, layout.rows, precision=precision, **settings):
        window = reads[0][1]
        for start in range(0, len(window.ids), block):
            parts = [(network, each.take(slice(start, start + block))) for network, each in reads]
            network, part = parts[0]
            characters = layout.owner[layout.starts[part.rows] + part.positions]
            targets = as_targets(part.ids, vocabulary.end_id)
            index = torch.from_numpy(targets)[:, None].to(network.device)
            for judge in JUDGES if both else ("forward",):
                with torch.inference_mode(), autocast(precision, network.device):
                    log_probs = average_log_probs([predict(*each, judge, file.first_logits) for each in parts])
                    if judge in mixed:
                        before = part.positions if judge == "forward" else sizes[part.rows] - 1 - part.positions
                        logits = mixed[judge].mix(part.rows, before, log_probs.cpu().numpy())
                        log_probs = torch.from_numpy(logits).to(network.device).log_softmax(1)
                    own = log_probs.gather(1, index)[:, 0]
                values = own.cpu().double().numpy() - extra[characters]
                if not np.isfinite(values).all():
                    raise ChargenError(NOT_FINITE_MESSAGE)
                yield Predicted(judge, characters, targets, log_probs, values)
        done += len(window.ids)
        progress("scoring", len(joined) * done // len(layout.owner), len(joined))
