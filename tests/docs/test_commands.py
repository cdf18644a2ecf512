"""Every fenced command of the documents is typed as it stands, by an ordinary user in a new home."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.helpers.documents import ROOT, Reader, blocks, reader
from tests.helpers.guests import requirements

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

DOCUMENTS = {
    "README.md": (*requirements.GATEWAY, "user namespaces"),
    "docs/attaching.md": (),
    "docs/ports.md": (),
    "docs/gateway.md": (*requirements.GATEWAY, "user namespaces", "curl"),
    "docs/operating.md": (),
}
"""Documents with commands, and their needs besides QEMU and root, which has to become another user."""
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"sh", "c", "toml", "xml", "yaml", "ruby", "json", "text"}
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="bh-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def type_all(document: str, reading: Reader) -> None:
    for block in blocks((ROOT / document).read_text()):
        if block.runs:
            print(f"{document}, line {block.line}:\n{block.text}")
            reading.type(block)


@pytest.mark.guest
@pytest.mark.timeout(600)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_the_documents_work_when_they_are_pasted(document: str, home: Path) -> None:
    requirements.require(("root", "tun", "ip", "qemu", "qemu-img", *DOCUMENTS[document]))
    with reader(home) as reading:
        type_all(document, reading)


def test_no_page_with_commands_is_forgotten() -> None:
    with_commands = {page for page in PAGES if any(block.runs for block in blocks((ROOT / page).read_text()))}
    assert with_commands == set(DOCUMENTS) | {"docs/benchmarks/README.md"}


def test_fences_are_of_languages_that_are_checked() -> None:
    """A block without a language would not be checked."""
    for page in PAGES:
        for block in blocks((ROOT / page).read_text()):
            assert block.language in LANGUAGES, (page, block.line)
            match block.language:
                case "toml":
                    tomllib.loads(block.text)
                case "xml":
                    ElementTree.fromstring(block.text.replace("...", ""))
                case "json":
                    json.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, anchor in LINK.findall((ROOT / page).read_text()):
        if target.startswith(("http:", "https:")):
            continue
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert anchor in {slug(each) for each in headings}, f"{page}: {target}#{anchor}"


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize(("page", "most"), [("README.md", 10_000), ("ARCHITECTURE.md", 12_000)])
def test_first_pages_are_short(page: str, most: int) -> None:
    assert (ROOT / page).stat().st_size <= most


def test_the_map_names_only_existing_files() -> None:
    text = "\n".join(re.findall(r"`([^`\n]+)`", (ROOT / "ARCHITECTURE.md").read_text()))
    named = set(re.findall(r"^(?:[\w.]+/)+[\w.]*\w$|^[\w]+\.(?:py|c|h)$", text, re.M))
    files = ["bulkhead.py", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("[!.]*/**/*"))]
    missing = [each for each in named if not any(f"/{file}".endswith(f"/{each}") for file in files)]
    assert len(named) > 20
    assert not missing
