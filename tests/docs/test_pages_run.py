"""The examples of the documentation run, and print what the page says they do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
PAGES = sorted(
    page.name
    for page in DOCS.glob("*.md")
    # A page whose examples need more than Python has a test of its own.
    if "```python" in page.read_text() and not (HERE / f"test_{page.stem}.py").exists()
)


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_examples_run_and_print_what_it_says(page: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "run_page.py", DOCS / page],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
