"""One network for everything, beside one for each family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mtenvs
from benchmarks import everything
from benchmarks.everything import ARMS, COLUMNS, ONE, OWN, SCALED, WIDE
from benchmarks.record import Store
from mtenvs.registry import ALL_FAMILIES


def rows(ends):
    """Scores that rise straight to their ends, by arm and seed; one family of two tasks."""
    made = [
        {
            "arm": arm,
            "family": "Biped",
            "task": task,
            "seed": seed,
            "steps": steps,
            "score": end * steps / 4,
        }
        for arm, values in ends.items()
        for seed, end in enumerate(values)
        for task in ("a", "b")
        for steps in range(5)
    ]
    return pd.DataFrame(made)


def test_areas_and_differences():
    found = everything.areas(rows({ONE: [0.4, 0.8], OWN: [0.8, 0.8], WIDE: [0.8, 1.2]}))
    one = found[found["arm"] == ONE]
    assert one["area"].tolist() == pytest.approx([0.2, 0.4])  # the mean of 0, 1/4 ... 1 of the end
    assert one["last"].tolist() == pytest.approx([0.3, 0.6])
    assert everything.told(pd.Series([1.0, 3.0]), pd.Series([1.0, 1.0])) == "+1.00 [-11.71, +13.71]"
    assert everything.told(pd.Series([2.0, 2.0]), pd.Series([1.0, 1.0])) == "+1.00"
    text = everything.summary(rows({ONE: [0.4, 0.8], OWN: [0.8, 0.8], WIDE: [0.8, 1.2]}))
    assert "| Biped | one for each family | 0.40 |  | 0.60 |  |" in text


def test_what_is_there_is_not_trained_again_and_other_settings_are_refused(tmp_path, monkeypatch):
    asked = []

    def learn(name, changes, seeds, budget):
        asked.append((name, changes))
        names = mtenvs.families() if name == ALL_FAMILIES else [name]
        tasks = [(family, task.name) for family in names for task in mtenvs.tasks(family)]
        return [
            {"family": f, "task": t, "seed": seed, "steps": steps, "score": 0.1 * steps + 0.01 * seed}
            for f, t in tasks
            for seed in range(seeds)
            for steps in range(5)
        ]

    monkeypatch.setattr(everything, "learn", learn)
    store = Store(tmp_path, quick=True)
    everything.everything(store)
    own = [(name, {}) for name in mtenvs.families()]
    wide, scaled = (ALL_FAMILIES, ARMS[WIDE]), (ALL_FAMILIES, ARMS[SCALED])
    assert asked == [(ALL_FAMILIES, {}), *own, wide, scaled]
    table = pd.read_csv(tmp_path / "everything.csv")
    assert list(table.columns) == COLUMNS
    assert (tmp_path / "everything.png").stat().st_size > 10_000
    lost = table[(table["arm"] != OWN) | (table["family"] != "Octopus")]
    lost.to_csv(tmp_path / "everything.csv", index=False)
    asked.clear()
    everything.everything(store)
    assert asked == [("Octopus", {})]
    assert len(pd.read_csv(tmp_path / "everything.csv")) == len(table)
    path = tmp_path / "everything.settings"
    path.write_text(json.dumps({**json.loads(path.read_text()), "budget": 7}))
    with pytest.raises(SystemExit, match="made with other budget: remove it"):
        everything.everything(store)


def test_a_network_learns_all_tasks_of_a_family(monkeypatch):
    monkeypatch.setattr(everything, "CHECKPOINTS", 2)
    monkeypatch.setattr(everything, "EPISODES", 2)
    found = pd.DataFrame(everything.learn("Octopus", {"hidden": (8,)}, 2, 448))
    assert sorted(found["task"].unique()) == sorted(task.name for task in mtenvs.tasks("Octopus"))
    assert sorted(found["steps"].unique()) == [0, 224, 448]
    assert found.groupby(["task", "seed"]).size().eq(3).all()
    assert np.isfinite(found["score"]).all()
    assert found[found["steps"] == 0]["score"].abs().max() < 0.5  # untrained, on a scale where random is 0


ROOT = Path(__file__).parents[1]
UNLIKE = ("BipedSkills", "DMWalker")
"""Families that lose by one network for all, of which the other arms are told too."""


@pytest.mark.parametrize("family", ["Biped", "Octopus", "BipedSkills", "DMWalker"])
def test_what_the_findings_say_is_in_the_record(family):
    rows = pd.read_csv(ROOT / "results/benchmarks/everything.csv")
    assert set(rows["arm"]) == set(ARMS)
    found = everything.areas(rows)
    last = {arm: found[(found["arm"] == arm) & (found["family"] == family)]["last"] for arm in ARMS}
    page = " ".join((ROOT / "results/FINDINGS.md").read_text().split())
    section = page.partition("### One network for everything")[2].partition(" ## ")[0]
    difference = everything.told(last[ONE], last[OWN]).replace("-", "−").replace("+", "")
    assert f"{last[ONE].mean():.2f} against {last[OWN].mean():.2f} ({difference})" in section
    assert all(f"{last[arm].mean():.2f}" in section for arm in (WIDE, SCALED) if family in UNLIKE)
    gain = everything.told(last[SCALED], last[ONE]).replace("+", "")
    assert f"({gain} more than without)" in section or family != "BipedSkills"
    (record,) = [
        line
        for line in (ROOT / "results/benchmarks/README.md").read_text().splitlines()
        if line.startswith(f"| {family} | {ONE} |")
    ]
    assert f"| {last[ONE].mean():.2f} |" in record
