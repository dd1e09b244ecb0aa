"""What the site shows that is not written in docs/pages/: other files of the repository, and examples of commands."""

import inspect
import textwrap
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from chargen.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = {"index.md": "README.md", "contributing.md": ".github/CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with links to where the site has what they link to."""
    for page, name in PAGES.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/pages/", "](")
        for other, source in PAGES.items():
            text = text.replace(f"]({source})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make code blocks of the examples in help, which click marks with a backspace."""
    context = click.Context(cli)
    for command in [cli, *(cli.get_command(context, name) for name in cli.list_commands(context))]:
        paragraphs = inspect.cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(
            textwrap.indent(text.removeprefix("\b\n"), "    " * text.startswith("\b\n")) for text in paragraphs
        )
    return config
