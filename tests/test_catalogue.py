"""The pages made from the registry are those in the repository, and say what is in it."""

from __future__ import annotations

from pathlib import Path

import mtenvs
from harness.catalogue import differences, families_table, nearest, page

ROOT = Path(__file__).parents[1]


def test_the_page_of_tasks_is_up_to_date() -> None:
    assert (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8") == page(), "run `make export`"


def test_the_readme_has_the_table_of_families() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert families_table() in readme, "paste what harness.catalogue.families_table() returns"


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


def test_nearest_is_nearest(family: mtenvs.Family) -> None:
    for task in family.tasks:
        near, distance = nearest(family, task)
        assert near != task
        assert all(family.distance(task, t) >= distance for t in family.tasks if t != task)
