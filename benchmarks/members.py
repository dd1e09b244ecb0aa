"""What several networks are worth beside one, with counts and without.

    python -m benchmarks.members tinyshakespeare.txt runs/one runs/two runs/three --out members.json

Nats a character on the whole validation part (the last 10 %; carried state, no adaptation): of each run's network, and
of the first two, three … together. Weights of counts are fitted on that part and cross-fitted, half of its blocks with
those of the other half.
"""

import json
from pathlib import Path
from typing import Any

import click

import chargen
from benchmarks.common import machine
from chargen import Corpus
from chargen.counting.recorder import Recorder
from chargen.evaluation.loss import evaluate_ids
from chargen.storage.model_file import build_model
from chargen.training.counts import AUTO_ORDER, count_contexts, fit_mixture, fitted_ids


@click.command()
@click.argument("text", type=click.Path(exists=True, path_type=Path))
@click.argument("models", nargs=-1, required=True)
@click.option("--order", default=AUTO_ORDER, show_default=True, help="Of counts.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all figures to this JSON file.")
def main(text: Path, models: tuple[str, ...], order: int, out: Path | None) -> None:
    """Measure the networks of MODELS, which have learned TEXT, alone and together."""
    corpus = Corpus.from_files(text, valid_fraction=0.1)
    networks = [build_model(chargen.read_model(model)) for model in models]
    tree = count_contexts(corpus, order, ("forward",))["forward"]
    rows: list[dict[str, Any]] = []
    click.echo(f"{'networks':>16}{'alone':>9}{'with counts':>13}")
    alone = [[network] for network in networks]
    together = [networks[:number] for number in range(2, len(networks) + 1)]
    for chosen, name in zip(alone + together, [*models, *map(str, range(2, len(networks) + 1))], strict=True):
        recorder, limit = Recorder(whole=True), fitted_ids(tree.size)
        evaluate_ids(chosen, corpus.valid, mixture=recorder, limit=limit)
        _, cross_fitted = fit_mixture(tree, recorder)
        loss = evaluate_ids(chosen, corpus.valid, mixture=cross_fitted)
        rows.append({"networks": name, "nats": loss.network_nats / loss.characters, "counts": loss.mean})
        click.echo(f"{name[-16:]:>16}{rows[-1]['nats']:>9.4f}{rows[-1]['counts']:>13.4f}")
    if out:
        out.write_text(json.dumps({"text": text.name, **machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
