"""The pages made from the registry are those in the repository, and say what is in it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import mtenvs
from harness.catalogue import (
    TABLE_MARKS,
    differences,
    families_table,
    learned,
    nearest,
    page,
    with_families_table,
)
from harness.cli import main
from harness.reference import ReferenceConfig
from harness.reference_scores import load_record

ROOT = Path(__file__).parents[1]


def test_the_page_of_tasks_is_up_to_date() -> None:
    assert (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8") == page(), "run `make export`"


def test_the_readme_has_the_table_of_families() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert families_table() in readme
    assert readme == with_families_table(readme), "run `make export`"


def test_the_command_renews_the_readmes_table(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    path = tmp_path / "README.md"
    path.write_text(readme.replace("| `mt/Biped-v0` |", "| `mt/Bipod-v0` |"), encoding="utf-8")
    assert families_table() not in path.read_text(encoding="utf-8")
    main(["tasks", "--readme", str(path)])
    assert path.read_text(encoding="utf-8") == readme


@pytest.mark.parametrize("text", ["none", "".join(TABLE_MARKS[::-1]), "".join(TABLE_MARKS * 2)])
def test_a_readme_without_its_marks_is_left_alone(text: str) -> None:
    with pytest.raises(
        ValueError, match="belongs between '<!-- families -->' and '<!-- /families -->', once"
    ):
        with_families_table(text)


def test_the_page_says_how_scores_were_measured() -> None:
    config = load_record("Octopus", 0)["config"]
    assert config["steps"] != ReferenceConfig().steps  # which the page must not take instead
    section = page().split("## mt/Octopus-v0\n")[1]
    assert f"{config['seeds']} trainings of {config['steps']:,} control steps for each task" in section


def test_the_page_names_every_task_parameter_and_reward_term(family: mtenvs.Family) -> None:
    section = page().split(f"## {family.id}\n")[1].split("\n## ")[0]
    for task in family.tasks:
        near, distance = nearest(family, task)
        row = f"| {task.number} | {task.name} | {differences(family, task)} | {near.name}, {distance:.2f} |"
        assert row in section
    for p in family.parameters:
        assert f"| {p.name} | {p.nominal:g} | {p.low:g} to {p.high:g} | {p.unit} |" in section
    for term in family.reward_terms:
        assert f"{term} " in section, f"the file's docstring does not explain the term {term!r}"


def test_the_page_says_why_each_task_is_there_and_how_its_family_was_decided(family: mtenvs.Family) -> None:
    assert list(family.why) == list(family.published), "a sentence for every published task, in their order"
    section = page().split(f"## {family.id}\n")[1].split("\n## ")[0]
    for task in family.tasks:
        assert re.fullmatch(r"[A-Zd].{40,}\.", task.why), f"{task.name} does not say why it is there"
        assert f"- **{task.name}**: {task.why}\n" in section
    assert len({task.why for task in family.tasks}) == len(family.tasks)
    assert family.decided.strip() in section


def test_nearest_is_nearest(family: mtenvs.Family) -> None:
    for task in family.tasks:
        near, distance = nearest(family, task)
        assert near != task
        assert all(family.distance(task, t) >= distance for t in family.tasks if t != task)


def test_the_page_tells_spread_and_success_of_the_references(family: mtenvs.Family) -> None:
    section = page().split(f"## {family.id}\n")[1].split("\n## ")[0]
    for task in family.tasks:
        found = load_record(family.name, family.version)["tasks"][task.name]["reference"]
        (row,) = re.findall(rf"^\| {task.number} \| {task.name} \| .*", section, re.MULTILINE)
        told = re.search(r"\| ([\d.]+) ± ([\d.]+) \| (\d+)% \|", row)
        assert told
        mean, spread, success = map(float, told.groups())
        assert mean == pytest.approx(np.mean(found["seeds"]), abs=0.051)
        assert spread == pytest.approx(np.std(found["seeds"], ddof=1), abs=0.051)
        assert success == pytest.approx(100 * found["success"], abs=0.51)


def test_when_trainings_from_nothing_were_good_is_read_off_their_curves() -> None:
    """Three trainings: two hold 0.8 of a reference of 110 over a random 10, and one never does."""
    task = mtenvs.tasks("Biped")[0]
    steps = [0, 100_000, 200_000, 300_000, 400_000]
    returns = [[10, 10, 90, 110, 110], [10, 90, 110, 110, 110], [10, 10, 10, 90, 20]]
    found = {
        "random": {"mean": 10.0},
        "reference": {"mean": 110.0, "seeds": [110.0, 110.0, 10.0]},
        "curve": {"steps": steps, "returns": returns},
    }
    record = {"config": {"steps": 500_000}, "tasks": {task.name: found}}
    assert learned(record, task) == "200k (100k to later)"
    del found["curve"]
    assert learned(record, task) == learned({}, task) == ""
