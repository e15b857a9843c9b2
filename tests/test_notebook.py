"""The notebook of docs/ runs, and what it stores is what it prints."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parents[1] / "docs"
PATH = DOCS / "analysis.ipynb"


def texts(notebook):
    """Whatever the cells print or show, as plain text, without where objects lie in memory."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
        found.append([re.sub(r"0x[0-9a-f]+", "0x", text) for text in shown])
    return found


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


def test_running_it_again_gives_what_is_stored(stored, monkeypatch):
    # the kernel is a process of its own, and shall import this copy of the repository
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    again = copy.deepcopy(stored)
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(again, timeout=60, resources={"metadata": {"path": str(DOCS)}}).execute()
    assert texts(again) == texts(stored)
    before, after = (
        [[sorted(o.get("data", {})) for o in cell.outputs] for cell in n.cells if cell.cell_type == "code"]
        for n in (stored, again)
    )
    assert after == before


def test_what_is_stored_is_small_and_names_no_machine(stored):
    nbformat.validate(stored)
    text = PATH.read_text()
    assert len(text) < 150_000
    assert not re.search(r"/home/|/tmp|/work|Users", text)
    numbers = [t for cell in texts(stored) for t in cell if t.startswith("report: ")]
    report, notebook = re.fullmatch(r"report: ([\d.]+), this notebook: ([\d.]+)\n", *numbers).groups()
    assert report == notebook
