"""Reference scores: what is committed suffices, and how they are made depends on nobody else."""

import copy
import json

import pytest

import harness.plan
import mtenvs
from baselines.registry import describe_learner
from harness.cli import main
from harness.plan import Preset, make_plan
from harness.reference import ReferenceConfig, _stream, make_reference, merge, shortcomings, write_reference
from harness.reference_scores import load_reference, reference_path

TINY = ReferenceConfig(steps=64, seeds=2, episodes=3, worlds_per_run=2)
WORDS = "--steps 64 --seeds 2 --episodes 3 --worlds-per-run 2"
NAMES = [task.name for task in mtenvs.tasks("Biped")]


@pytest.fixture(scope="module")
def two():
    return make_reference("Biped", TINY, [NAMES[0], NAMES[-1]])


def committed(family):
    return json.loads(reference_path(family.name, family.version).read_text())


def score(random, zero, reference):
    return {
        "random": {"mean": random, "std": 1.0},
        "zero": {"mean": zero, "std": 1.0},
        "reference": {"mean": reference, "std": 2.0},
    }


def test_every_published_task_is_learnable_by_the_committed_scores(family):
    record = committed(family)
    assert record["family"] == family.id
    assert shortcomings(record) == []


def test_every_published_task_has_a_true_score(family, monkeypatch):
    monkeypatch.setattr(harness.plan, "load_reference", load_reference)  # none made up
    learner = {"name": "ppo", "rollout": 32, "config": {}}
    worlds = 8 * (len(family.tasks) - 1)
    make_plan(family.name, Preset(worlds_per_run=worlds), learner)  # names the command that makes it
    assert set(committed(family)["tasks"]) == {task.name for task in family.tasks}


def test_shortcomings_are_named():
    record = {"tasks": {"fine": score(1.0, 2.0, 400.0), "hopeless": score(1.0, 2.0, 6.9)}}
    assert shortcomings(record) == ["hopeless: reference 6.9 is not clearly above random 1.0"]
    record = {"tasks": {"idle": score(0.0, 10.0, 100.0), "nearly": score(0.0, 9.9, 100.0)}}
    assert shortcomings(record) == ["idle: doing nothing scores 0.10"]
    wild = score(1.0, 2.0, 100.0)
    wild["reference"]["std"] = 50.0
    assert len(shortcomings({"tasks": {"wild": wild}})) == 1


def test_a_tasks_numbers_do_not_depend_on_which_others_are_measured(two):
    alone = make_reference("Biped", TINY, [NAMES[-1]])["tasks"]
    among = make_reference("Biped", TINY, [NAMES[-1], NAMES[2], NAMES[0]])["tasks"]
    assert list(alone) == [NAMES[-1]]
    for other in (two["tasks"], among):
        for kind in ("random", "zero"):
            assert alone[NAMES[-1]][kind] == other[NAMES[-1]][kind]
        # networks in batches of another size are multiplied by another kernel: equal up to rounding
        seeds = [tasks[NAMES[-1]]["reference"]["seeds"] for tasks in (alone, other)]
        assert seeds[0] == pytest.approx(seeds[1], rel=1e-2)


def test_a_record_holds_what_it_was_made_with(two):
    assert list(two["tasks"]) == [NAMES[0], NAMES[-1]]
    assert two["config"] == {**vars(TINY)}
    assert two["learner"]["config"] == describe_learner("ppo", "Biped").config
    for task in two["tasks"].values():
        assert len(task["reference"]["seeds"]) == 2
        assert task["reference"]["seeds"][0] != task["reference"]["seeds"][1]
        assert task["reference"]["std"] > 0
        assert 0 <= task["reference"]["success"] <= 1
        assert task["random"] != task["zero"]
    assert two == make_reference("Biped", TINY, [NAMES[0], NAMES[-1]])
    assert two["tasks"][NAMES[0]]["zero"] != two["tasks"][NAMES[-1]]["zero"]
    streams = {
        tuple(_stream(task, purpose).generate_state(2))
        for task in mtenvs.tasks("Biped")
        for purpose in ("starts", "random", "train 0", "train 1")
    }
    assert len(streams) == 4 * len(NAMES)  # nobody shares one


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown task 'nobody'"):
        make_reference("Biped", TINY, ["nobody"])
    with pytest.raises(ValueError, match="unknown learner 'pp'"):
        make_reference("Biped", ReferenceConfig(learner="pp"))
    with pytest.raises(ValueError, match=r"no device 'cdua'.*valid: cpu"):
        make_reference("Biped", TINY, device="cdua")


def test_records_merge_only_if_made_alike(two):
    new = copy.deepcopy(two)
    new["tasks"] = {"newest": new["tasks"].pop(NAMES[0])}
    both = merge(two, new)
    assert list(both["tasks"]) == [NAMES[0], NAMES[-1], "newest"]
    new["config"]["steps"] = 65
    with pytest.raises(ValueError, match=r"made with another config.*--fresh"):
        merge(two, new)


def test_the_command_measures_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.cli.shortcomings", lambda record: [])  # two rollouts teach nobody
    path = tmp_path / "scores.json"
    words = ["reference", "Biped", *WORDS.split(), "--out", str(path)]
    main(words)
    assert f"wrote {path}" in capsys.readouterr().out
    whole = json.loads(path.read_text())
    assert sorted(whole["tasks"]) == sorted(NAMES)
    main(words)
    assert "has scores of all tasks" in capsys.readouterr().out
    partly = copy.deepcopy(whole)
    del partly["tasks"][NAMES[1]]
    partly["tasks"][NAMES[0]]["zero"]["mean"] = 123.0  # kept as it is
    write_reference(partly, path)
    main(words)
    again = json.loads(path.read_text())["tasks"]
    assert again[NAMES[0]]["zero"]["mean"] == 123.0
    assert again[NAMES[1]]["random"] == whole["tasks"][NAMES[1]]["random"]
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def test_the_command_says_what_is_not_learnable_and_keeps_the_file(tmp_path, capsys):
    path = tmp_path / "scores.json"
    with pytest.raises(SystemExit) as stop:
        main(["reference", "Biped", *WORDS.split(), "--out", str(path)])
    assert stop.value.code == 2
    assert "these tasks should not be published" in capsys.readouterr().err
    assert path.is_file()
