"""Documents become the text in them, where the packages are; otherwise they are named."""

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from chargen.data import documents
from chargen.data.corpus import Corpus
from chargen.data.documents import convert, document_kind
from chargen.data.reading import read_text
from chargen.data.reading_config import ReadingConfig
from chargen.data.reading_report import ReadingReport
from chargen.data.sources import find_sources
from chargen.errors import DataError, SettingError

TEXT = "Chapter One\n\nIt was a dark & cold night: 2 * 3 is [six].\n"
HTML = """<!DOCTYPE html><html><head><title>T</title><style>p{}</style><script>evil()</script></head><body>
<h1>Chapter One</h1><p>It was a <b>dark</b> &amp; <a href="http://a.example/x">cold</a> night: 2 * 3 is [six].
</body></html>"""


def pack(members: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def docx() -> bytes:
    schemas = "http://schemas.openxmlformats.org"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    types, relations = f"{schemas}/package/2006/content-types", f"{schemas}/package/2006/relationships"
    office = f"{schemas}/officeDocument/2006/relationships/officeDocument"
    lines = TEXT.replace("&", "&amp;").split("\n")
    paragraphs = "".join(f"<w:p><w:r><w:t>{line}</w:t></w:r></w:p>" for line in lines if line)
    return pack(
        {
            "[Content_Types].xml": f'<Types xmlns="{types}"><Default Extension="rels" ContentType="application/'
            'vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{relations}"><Relationship Id="r" Type="{office}" '
            'Target="word/document.xml"/></Relationships>',
            "word/document.xml": f'<w:document xmlns:w="{schemas}/wordprocessingml/2006/main"><w:body>'
            f"{paragraphs}</w:body></w:document>",
        }
    )


def epub() -> bytes:
    return pack(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": '<container version="1.0" '
            'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="c.opf" '
            'media-type="application/oebps-package+xml"/></rootfiles></container>',
            "c.opf": '<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="i"><metadata '
            'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>T</dc:title><dc:identifier id="i">1</dc:identifier>'
            '<dc:language>en</dc:language></metadata><manifest><item id="a" href="a.xhtml" '
            'media-type="application/xhtml+xml"/></manifest><spine><itemref idref="a"/></spine></package>',
            "a.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><body><h1>Chapter One</h1><p>It was a <i>dark</i> '
            "&amp; cold night: 2 * 3 is [six].</p></body></html>",
        }
    )


def pdf(text: str = TEXT) -> bytes:
    """Two pages, each with a line for each line of a text."""
    lines = "".join(f"0 -30 Td ({line}) Tj " for line in text.split("\n") if line)
    stream = f"BT /F1 18 Tf 20 250 Td {lines}ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R 3 0 R]/Count 2>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 500 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]  # fmt: skip
    content, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, item)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(content)
    return content + b"xref\n0 6\n0000000000 65535 f \n" + table + end


DOCUMENTS = {"book.docx": docx(), "book.epub": epub(), "book.pdf": pdf(), "book.HTML": HTML.encode()}


def text_of(path: Path, report: ReadingReport | None = None, **config: Any) -> str:
    return "".join(read_text(find_sources([path])[0], ReadingConfig(**config), report=report))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_read_as_the_text_in_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DOCUMENTS[name])
    expected = 2 * TEXT.replace("\n\n", "\n") if name.endswith("pdf") else TEXT
    assert text_of(tmp_path / name, documents=True, encoding="cp1252") == expected
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as archive:
        archive.writestr(f"shelf/{name}", DOCUMENTS[name])
    assert text_of(tmp_path / "books.zip", documents=True) == expected
    corpus = Corpus.from_files(tmp_path / name, documents=True)
    assert corpus.vocabulary.decode(corpus.train) + corpus.vocabulary.decode(corpus.valid) == expected


def test_html_is_read_with_its_tags_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "book.html").write_text(HTML)
    for wanted, count in ((None, 1), (False, 0)):
        report = ReadingReport()
        assert text_of(tmp_path / "book.html", report, documents=wanted) == HTML
        assert report.html == count, "who has said what is wanted need not be told"


@pytest.mark.parametrize("name", ["book.docx", "book.epub", "book.pdf"])
def test_what_is_damaged_or_cannot_be_read_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(DOCUMENTS[name][:300])
    (tmp_path / "a.txt").write_text("text\n")
    with pytest.raises(DataError, match=f"{name} is no document that can be read: .*; take a fresh copy") as caught:
        text_of(tmp_path / name)
    assert "\n" not in str(caught.value)
    report = ReadingReport()
    assert text_of(tmp_path, report) == "text\n"
    assert report.passed_over == [f"{tmp_path / name} (no document that can be read)"]
    (tmp_path / name).write_bytes(DOCUMENTS[name])
    monkeypatch.setattr(documents, "find_spec", lambda module: None)
    for wanted, advice in ((None, r"pip install 'chargen\[documents\]'"), (False, "leave out `documents=False`")):
        with pytest.raises(DataError, match=rf" is an? (PDF|EPUB|office).*{advice}"):
            text_of(tmp_path / name, documents=wanted)


def test_packages_that_are_asked_for_and_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pypandoc", "pypdfium2"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, content in DOCUMENTS.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingError, match=r"^`documents` needs more packages: pip install 'chargen\[documents\]'"):
            text_of(tmp_path / name, documents=True)


def test_pages_without_text_are_told(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(pdf(""))
    with pytest.raises(DataError, match="it holds no text; are its pages pictures"):
        text_of(tmp_path / "scan.pdf")


def test_a_document_that_takes_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "SECONDS", 1e-6)
    with pytest.raises(DataError, match="timed out"):
        convert(docx(), "docx")


def test_a_paragraph_is_a_line_and_pandoc_stays_in_its_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "word " * 99 + "end"
    assert convert(f"<p>{words}</p>".encode(), "html") == words + "\n"
    commands: list[list[str]] = []
    real = documents.subprocess.run
    monkeypatch.setattr(
        documents.subprocess, "run", lambda command, **rest: commands.append(command) or real(command, **rest)
    )
    convert(docx(), "docx")
    assert "--sandbox" in commands[0]


def test_raw_bytes_are_those_of_the_document(tmp_path: Path) -> None:
    (tmp_path / "book.docx").write_bytes(docx())
    corpus = Corpus.from_files(tmp_path / "book.docx", unit="byte", encoding="raw")
    assert bytes([*corpus.train, *corpus.valid]) == docx()
    with pytest.raises(SettingError, match="documents"):
        ReadingConfig(encoding="raw", documents=True)


def test_what_is_a_document_is_said_by_its_name() -> None:
    assert document_kind("a/b.Epub", True) == "epub"
    assert document_kind(".pdf", None) == "pdf" * (importlib.util.find_spec("pypdfium2") is not None)
    assert {document_kind(path, True) for path in ("a.txt", "pdf", "", ".docx.txt", "a.tex", "a.md")} == {""}
