"""How hyperparameters are chosen: on sampled tasks, by paired gains, and not at scratch's cost."""

from __future__ import annotations

import concurrent.futures
import json
import math
from pathlib import Path

import numpy as np
import pytest

import mtenvs
from baselines.registry import describe_learner
from benchmarks import tuning
from benchmarks.tuning import ALONE, APART, COMBINED, FIRST, SETS, TOGETHER, Arguments

NETWORKS = ALONE + SETS
ROOT = Path(__file__).parents[1]


def of(alone, many):
    """A trial whose networks rise straight to these rewards."""
    ends = {"alone": np.broadcast_to(alone, ALONE), "many": np.broadcast_to(many, SETS)}
    curves = {
        kind: {"curves": [[0.0, end / 2, end] for end in values.tolist()], "diverged": 0}
        for kind, values in ends.items()
    }
    return {"changes": {}, "steps": 10, "seconds": 1, **curves}


def test_sampled_tasks_are_new_and_apart_from_the_published_ones(family):
    seen = set()
    for first in {first for phases in tuning.FIRST_SAMPLE.values() for first in phases.values()}:
        alone, many = tuning.tasks_of(family.name, first)
        assert [len(run) for run in alone] == [1] * ALONE
        assert [len(run) for run in many] == [TOGETHER] * SETS
        tasks = [task for run in (*alone, *many) for task in run]
        assert min(family.distance(a, b) for a in tasks for b in family.tasks) >= APART
        names = {task.name for task in tasks}
        assert len(names) == ALONE + SETS * TOGETHER
        assert not names & seen
        seen |= names


def test_a_gain_is_a_share_of_the_largest_on_the_same_tasks():
    ends = np.full(ALONE, 0.4)
    ends[2] = 0.001  # nobody learns that
    gained = tuning.gains({"defaults": of(ends, 0.2), "better": of(2 * ends, 0.1)})
    assert np.isnan([g[2] for g in gained.values()]).all()
    assert np.delete(gained["defaults"], 2) == pytest.approx([0.5] * (ALONE - 1) + [1.0] * SETS)
    assert np.delete(gained["better"], 2) == pytest.approx([1.0] * (ALONE - 1) + [0.5] * SETS)
    mean, low, high = tuning.difference(gained["better"], gained["defaults"])
    assert mean == pytest.approx((0.5 * (ALONE - 1) - 0.5 * SETS) / (NETWORKS - 1))
    assert low < mean < high
    assert math.isnan(tuning.difference(gained["better"], gained["better"])[1])


@pytest.mark.parametrize(
    ("alone", "many", "adopted"),
    [
        ([0.5, 0.55] * (ALONE // 2), 0.5, True),
        ([0.39, 0.4] * (ALONE // 2), [0.9, 0.8, 0.9, 0.8], False),  # pretraining's gain at scratch's cost
        ([0.1, 0.9] * (ALONE // 2), 0.4, False),  # it may be luck
        (0.4, 0.4, False),
    ],
)
def test_only_what_is_better_beyond_doubt_and_not_at_the_cost_of_scratch_is_adopted(alone, many, adopted):
    assert tuning.is_adopted({"defaults": of(0.4, 0.4), "new": of(alone, many)}, "new") is adopted


def test_what_helped_is_combined_the_better_last():
    values = dict.fromkeys(FIRST, 0.3)
    values |= {"learning_rate 1e-3": 0.5, "learning_rate 2.5e-4": 0.45, "ent_coef 0.003": 0.41}
    noise = 0.01 * np.arange(ALONE)
    trials = {name: of(value + noise, value) for name, value in values.items()} | {"defaults": of(0.4, 0.4)}
    assert tuning.helpful(trials, FIRST) == {"learning_rate": 1e-3, "ent_coef": 0.003}


def test_trials_are_made_once_and_the_record_says_what_was_adopted(tmp_path, monkeypatch):
    asked = []

    def trial(arguments, changes, phase):
        asked.append((phase, changes))
        good = 0.1 * (changes.get("learning_rate") == 1e-3) + 0.05 * (changes.get("update_epochs") == 10)
        return of(0.4 + good + 0.001 * np.arange(ALONE), 0.4 + good) | {"changes": dict(changes)}

    monkeypatch.setattr(tuning, "trial", trial)
    monkeypatch.setattr(
        concurrent.futures, "ProcessPoolExecutor", lambda n, _: concurrent.futures.ThreadPoolExecutor(n)
    )
    arguments = Arguments("Biped", out=tmp_path)
    known = tuning.tune(arguments)
    best = {"update_epochs": 10, "learning_rate": 1e-3}
    assert known["best"] == COMBINED
    assert known["adopted"] == known["trials"][COMBINED]["changes"] == best
    assert len(asked) == len(FIRST) + 1 + 2
    assert tuning.tune(arguments)["adopted"] == best  # from what is stored
    assert len(asked) == len(FIRST) + 1 + 2
    text = (tmp_path / "README.md").read_text()
    assert f"Best: {COMBINED}. Adopted: {json.dumps(known['adopted'])}." in text
    assert "| confirmation | all that helped |" in text
    assert "| both | all that helped |  |  | +0.272 [" in text  # 0.15 of 0.55, as in each phase
    with pytest.raises(SystemExit, match="made with other budget: remove it"):
        tuning.tune(Arguments("Biped", budget=1, out=tmp_path))
    # against the rule only with a reason, which stays
    with pytest.raises(SystemExit, match="--because says why"):
        tuning.tune(Arguments("Biped", out=tmp_path, adopt="ent_coef 0.003"))
    with pytest.raises(SystemExit, match=r"'luck' was not tried: .*defaults, "):
        tuning.tune(Arguments("Biped", out=tmp_path, adopt="luck", because="why not"))
    told = tuning.tune(Arguments("Biped", out=tmp_path, adopt="ent_coef 0.003", because="It looks nice."))
    assert told["adopted"] == tuning.tune(arguments)["adopted"] == {"ent_coef": 0.003}
    assert "**against the rule above**: It looks nice." in (tmp_path / "README.md").read_text()
    assert len(asked) == len(FIRST) + 1 + 2


def test_a_second_round_starts_from_what_the_first_adopted(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="starts from the first, which is not in"):
        tuning.tune(Arguments("Biped", round=2, out=tmp_path))
    first = {"hidden": [128, 128]}
    (tmp_path / "Biped.json").write_text(json.dumps({"adopted": first}))
    asked = []

    def trial(arguments, changes, phase):
        asked.append((arguments.round, phase, changes))
        good = 0.4 + 0.1 * (changes.get("learning_rate") == 2.5e-4)
        return of(good + 0.001 * np.arange(ALONE), good) | {"changes": dict(changes)}

    monkeypatch.setattr(tuning, "trial", trial)
    monkeypatch.setattr(tuning, "page", lambda records: "")
    monkeypatch.setattr(
        concurrent.futures, "ProcessPoolExecutor", lambda n, _: concurrent.futures.ThreadPoolExecutor(n)
    )
    known = tuning.tune(Arguments("Biped", round=2, out=tmp_path))
    assert known["best"] == "learning_rate 2.5e-4"
    assert known["adopted"] == {"hidden": [128, 128], "learning_rate": 2.5e-4}
    assert known["asked"]["defaults"]["hidden"] == [128, 128]
    assert len(asked) == len(tuning.SECOND) + 2
    assert all(changes.items() >= first.items() and number == 2 for number, _, changes in asked)
    assert json.loads((tmp_path / "Biped-2.json").read_text()) == json.loads(json.dumps(known))
    assert json.loads((tmp_path / "Biped.json").read_text()) == {"adopted": first}


def test_the_stored_page_is_that_of_the_stored_records():
    paths = sorted((ROOT / "results/tuning").glob("*.json"), key=lambda path: path.stem)
    page = tuning.page([json.loads(path.read_text()) for path in paths])
    assert page == (ROOT / "results/tuning/README.md").read_text()
    _, _, second = page.partition("## BipedSkills, second round")
    assert "Defaults, as the first round adopted them: " in second
    assert "`python -m benchmarks.tuning BipedSkills --round 2 " in second


def test_networks_learn_their_sampled_tasks():
    alone, _ = tuning.tasks_of("Biped", 20_000)
    found = tuning.learn("Biped", {"num_steps": 8}, alone[:2], 8 * 56, [0, 1])
    assert np.shape(found["curves"]) == (2, tuning.CHECKPOINTS + 1)
    assert found["diverged"] == 0
    assert mtenvs.get_family("Biped").episode_steps == 500  # rewards are per control step of an episode
    assert np.abs(found["curves"]).max() < 1.0
    # the untrained network is the same whatever is trained
    again = tuning.learn("Biped", {"num_steps": 4}, alone[:2], 8 * 56, [0, 1])
    assert [c[0] for c in again["curves"]] == [c[0] for c in found["curves"]]
    assert again["curves"] != found["curves"]


@pytest.mark.parametrize("family", ["Biped", "BipedSkills", "Octopus"])
def test_what_plans_say_of_tuning_is_what_was_recorded(family: str) -> None:
    """Number of trials and their steps; the hyperparameters are those that the last round adopted."""
    paths = sorted((ROOT / "results/tuning").glob(f"{family}*.json"), key=lambda path: len(path.stem))
    records = [json.loads(p.read_text()) for p in paths if p.stem.removesuffix("-2") == family]
    trials = [t for r in records for phase in ("trials", "confirmation") for t in r[phase].values()]
    record, learner = records[-1], describe_learner("ppo", family)
    assert learner.tuning == {"trials": len(trials), "steps": max(t["steps"] for t in trials)}
    assert learner.config == record["asked"]["defaults"] | record["adopted"]


def test_trials_change_the_defaults_for_all_families_not_what_was_adopted_for_one():
    adopted = describe_learner("ppo", "Octopus").config
    tried = tuning.configuration("Octopus", {"ent_coef": 0.003}).config
    assert adopted["learning_rate"] == 1e-3
    assert tried == describe_learner("ppo", "Biped").config | {"ent_coef": 0.003}
