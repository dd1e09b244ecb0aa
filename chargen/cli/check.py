"""`chargen check`: test that a model's predictions see exactly what they may."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from chargen.cli.options import PATH, GroupedCommand, option
from chargen.cli.terminal import colorize, log_compiling, print_line
from chargen.cli.threads_option import threads_option
from chargen.errors import ModelFileError, amount
from chargen.evaluation.causality import check
from chargen.storage.model_file import model_path, read_model

SEEN = {"forward": "what stands before", "backward": "what stands behind", "cloze": "both sides"}


@click.command("check", cls=GroupedCommand)
@click.argument("model", type=PATH)
@option("--json", "as_json", group="Other", is_flag=True, help="Print one JSON object.")
@threads_option
def command(model: Path, as_json: bool) -> None:
    """Check what a model's predictions see.

    A forward prediction must not move, not by a bit, when the character it predicts or a later one changes, and must
    move when the one before it does; backward and cloze predictions alike. Tried on a random text: in one go, in
    windows with carried state, step by step, and compiled as sample does. Exit code 4 if one leaks or is blind.
    """
    path = model_path(model)
    log_compiling()
    results = check(read_model(path))
    if as_json:
        click.echo(json.dumps({"path": str(path), "checks": [asdict(result) for result in results]}))
    elif not results:
        click.echo("nothing to check: the model knows one character only")
    else:
        for result in results:
            verdict = colorize("FAILED", "red") if result.violations else colorize("ok", "green")
            print_line(f"{result.prediction:9} {result.path:15} sees {SEEN[result.prediction]} only: {verdict}")
            for line in result.violations[:5]:
                click.echo(f"    {line}")
            if len(result.violations) > 5:
                click.echo(f"    and {len(result.violations) - 5} more")
    failed = sum(bool(result.violations) for result in results)
    if failed:
        ways = amount(len(results), "way")
        raise ModelFileError(f"{path}: of {ways} to predict, leaking or blind: {failed}; trust no figures of it")
