"""The notebook of docs/ runs, and what it stores is what it prints."""

import copy
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_plans import leave_one_out, write_plan_and_rows

DOCS = Path(__file__).parents[1] / "docs"
PATH = DOCS / "analysis.ipynb"


def texts(notebook):
    """Whatever the cells print or show, as plain text. Figures vary with fonts."""
    found = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        data = [o.get("data") or {"text/plain": o["text"]} for o in cell.outputs]
        found.append(["figure" if "image/png" in d else d["text/plain"] for d in data])
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
    assert texts(again) == texts(stored), "run it: jupyter execute --inplace docs/analysis.ipynb"
    assert ["figure"] in texts(again)


def test_what_is_stored_is_small_and_names_no_machine(stored):
    nbformat.validate(stored)
    text = PATH.read_text()
    assert len(text) < 150_000
    assert not re.search(r"/(?:home|root|tmp|Users)/", text)
    numbers = [t for cell in texts(stored) for t in cell if t.startswith("report: ")]
    report, notebook = re.fullmatch(r"report: ([\d.]+), this notebook: ([\d.]+)\n", *numbers).groups()
    assert report == notebook


def test_it_reads_the_plan_and_counts_pretrainings_where_each_has_several_fine_tunings(
    stored, tmp_path, capsys
):
    arms = ("scratch", "transfer")
    plan = leave_one_out(
        (0, 2), 3, arms, finetunes=3, finetune_folds=(2,), version=0, arrivals="interpolated"
    )
    plan["thresholds"] = plan["thresholds"][::2]
    write_plan_and_rows(tmp_path, plan)
    # a network from scratch that is handed on is shown another task at its end, which is no learning
    rows = next((tmp_path / "runs").glob("learn-0-scratch-*")) / "rows.jsonl"
    last = json.loads(rows.read_text().splitlines()[-1])
    with rows.open("a") as file:
        file.write(json.dumps(last | {"task": plan["tasks"][2]["name"]}) + "\n")
    names = {}
    for cell in (cell for cell in stored.cells if cell.cell_type == "code"):
        exec(cell.source.replace("../results/quickstart", str(tmp_path)), names)
    # its last cell asserts that the report's estimate and interval are these
    assert "report: " in capsys.readouterr().out
