# Copyright (c) The drgn-pmem authors
# SPDX-License-Identifier: LGPL-2.1-or-later
"""
The HTML report in a real browser: Debian's chromium (``apt-get install chromium``), and for its
PDF ``pdftotext`` (``apt-get install poppler-utils``). A copy of the page gets a script that
measures it; the page itself has none.
"""

import html
import json
from pathlib import Path
import re
import shutil
import subprocess
from typing import Any

import pytest

from ..samples import run_text
from .test_report import default

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"
)

MEASURE = """
<script>
const root = document.documentElement;
const inside = [...document.querySelectorAll("pre, table, svg, dl, ul, p")];
const links = [...document.querySelectorAll("a")].map(link => link.getAttribute("href"));
const lost = links.filter(href => {
  const target = href && href.startsWith("#") && document.getElementById(href.slice(1));
  return !target || target.getClientRects().length === 0;
});
document.body.setAttribute("data-measured", JSON.stringify({
  page: root.scrollWidth, window: window.innerWidth,
  wide: inside.filter(e => e.scrollWidth > root.clientWidth).map(e => e.outerHTML.slice(0, 200)),
  links: links.length, lost: lost,
  ids: [...document.querySelectorAll("[id]")].length,
  unique: new Set([...document.querySelectorAll("[id]")].map(e => e.id)).size,
}));
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    run_text(default.prog, f"pmem-report -o {path}")
    return path


def chromium(path: Path, *options: str) -> str:
    folder = path.parent / "profile"
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}", *options]
    done = subprocess.run(
        [str(CHROMIUM), *words, path.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(report: Path, width: int) -> Any:
    copy = report.with_name(f"measured-{width}.html")
    copy.write_text(report.read_text().replace("</body>", f"{MEASURE}</body>"))
    dom = chromium(copy, f"--window-size={width},1000", "--dump-dom")
    (value,) = re.findall(r'data-measured="([^"]*)"', dom)
    return json.loads(html.unescape(value))


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_scrolls_sideways_and_every_link_lands(report: Path, width: int) -> None:
    found = measured(report, width)
    assert found["window"] == width
    assert found["page"] <= width
    assert not found["wide"]
    assert found["links"] > 50
    assert not found["lost"]
    assert found["ids"] == found["unique"]


def test_the_page_has_no_script_and_loads_nothing(report: Path) -> None:
    text = report.read_text()
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "url(" not in text
    assert "@import" not in text


def words(text: str) -> set[str]:
    """What a text is made of, whatever its line breaks."""
    return set(re.findall(r"[A-Za-z_][\w.-]{5,}|0x[0-9a-f]{4,}", text))


def test_the_pdf_has_all_text(report: Path, tmp_path: Path) -> None:
    """Nothing is cut off at the edge of the paper."""
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed (apt-get install poppler-utils)")
    pdf = tmp_path / "report.pdf"
    chromium(report, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    printed = subprocess.run(
        ["pdftotext", "-raw", str(pdf), "-"], capture_output=True, text=True, check=True
    ).stdout
    body = re.sub(r"<style.*?</style>|<title>.*?</title>", " ", report.read_text(), flags=re.DOTALL)
    page = html.unescape(re.sub(r"<[^>]+>", " ", body))
    # A long word may be broken at the end of a line.
    joined = re.sub(r"\s+", "", printed)
    missing = {word for word in words(page) if word not in joined}
    assert not missing
