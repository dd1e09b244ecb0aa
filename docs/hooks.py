"""What the site shows that is not written in docs/pages/: other files of the repository, and examples of commands."""

import inspect
import re
import textwrap
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from chargen.cli.main import NAMES, cli, import_command

ROOT = Path(__file__).parent.parent
SECTION = """
::: mkdocs-click
    :module: chargen.cli.{module}
    :command: command
    :prog_name: chargen {name}
    :depth: 2
"""
PAGES = {"index.md": "README.md", "contributing.md": ".github/CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with links to where the site has what they link to."""
    for page, name in PAGES.items():
        text = re.sub(r"]\((\.\./)?docs/pages/", "](", (ROOT / name).read_text("utf-8"))
        for other, source in PAGES.items():
            text = text.replace(f"]({source})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Add a section for each command: mkdocs-click would sort them by name."""
    if page.file.src_uri != "reference/commands.md":
        return markdown
    cli.list_commands = lambda ctx: []
    return markdown + "".join(SECTION.format(name=name, module=name.replace(" ", "_")) for name in NAMES)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make code blocks of the examples in help, which click marks with a backspace, and let commands have -h."""
    for command in [cli, *map(import_command, NAMES)]:
        command.context_settings = cli.context_settings  # with -h, which commands take over when they are called
        paragraphs = inspect.cleandoc(command.help).split("\n\n")
        command.help = "\n\n".join(
            textwrap.indent(text.removeprefix("\b\n"), "    " * text.startswith("\b\n")) for text in paragraphs
        )
    return config


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mark options, which are not to be broken behind their hyphens; commands are copied as they are."""
    return re.sub(r"(?<=[\s>])--[a-z][a-z-]*", r'<span class="option">\g<0></span>', html)
