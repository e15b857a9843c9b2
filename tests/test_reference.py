"""Reference scores: what is committed suffices, and how they are made depends on nobody else."""

import copy
import dataclasses
import inspect
import json
import sys
import types

import pytest

import harness.plan
import mtenvs
from baselines.registry import describe_learner
from harness.cli import main
from harness.family_code import family_code
from harness.plan import Preset, make_plan
from harness.reference import (
    ReferenceConfig,
    _stream,
    make_reference,
    merge,
    restamped,
    shortcomings,
    unmeasured,
    write_reference,
)
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
        "reference": {"mean": reference, "std": 2.0, "seeds": [reference]},
    }


def test_every_published_task_is_learnable_by_the_committed_scores(family):
    record = committed(family)
    assert record["family"] == family.id
    assert shortcomings(record) == []


def test_every_published_task_has_a_true_score(family, monkeypatch):
    monkeypatch.setattr(harness.plan, "load_reference", load_reference)  # none made up
    learner = dataclasses.asdict(describe_learner("ppo", family.name)) | {"rollout": 32}
    worlds = 8 * (len(family.tasks) - 1)
    make_plan(family.name, Preset(worlds_per_run=worlds), learner)  # names the command that makes it
    assert set(committed(family)["tasks"]) == {task.name for task in family.tasks}


def measured_families():
    families = [mtenvs.get_family(name) for name in mtenvs.families()]
    return [f for f in families if reference_path(f.name, f.version).is_file()]


@pytest.mark.parametrize("family", measured_families(), ids=lambda f: f.name)
def test_the_committed_scores_are_of_the_present_code_and_tasks(family):
    record, command = committed(family), f"mtenvs reference {family.name}"
    assert record.get("family_code") == family_code(family), (
        f"the scores were measured with other code of {family.name}: run '{command} --fresh' or, if the "
        f"change leaves returns as they were, '{command} --restamp'"
    )
    assert unmeasured(family, record) == []
    assert all("parameters" in task for task in record["tasks"].values())


def test_shortcomings_are_named():
    record = {"tasks": {"fine": score(1.0, 2.0, 400.0), "hopeless": score(1.0, 1.2, 3.9)}}
    assert shortcomings(record) == ["hopeless: a training that reached 3.9 is not clearly above random 1.0"]
    record = {"tasks": {"idle": score(0.0, 10.0, 100.0), "nearly": score(0.0, 9.9, 100.0)}}
    assert shortcomings(record) == ["idle: doing nothing scores 0.10"]
    wild = score(1.0, 2.0, 100.0)
    wild["reference"]["seeds"] = [196.1, 100.0, 3.9]  # one did not learn
    assert len(shortcomings({"tasks": {"wild": wild}})) == 1
    wild["reference"]["seeds"][-1] = 4.1
    assert shortcomings({"tasks": {"wild": wild}}) == []


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


FILE = '''
"""A family."""
Family = dict  # stands for ours
SPEED = 1.0  # m/s
"""How fast."""
LIST: dict = {"plain": {}}
WHY: dict = {"plain": "Why."}


def build(p):
    """Builds it."""
    return f"{SPEED} {p['x']}"


FAMILY = Family(name="Made", published=LIST, why=WHY, build=build)
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  # m/s", "  # metres a second", True),
        ('"""A family."""', '"""Another text."""', True),
        ('    """Builds it."""\n', "", True),
        ('"""How fast."""\n', "", True),
        ('{"plain": {}}', '{"plain": {}, "fast": {"x": 2}}', True),
        ('{"plain": "Why."}', '{"plain": "For another reason."}', True),
        (", why=WHY", ", why=WHY, decided='By hand.'", True),
        (", why=WHY", ", reason=WHY", False),
        ("published=LIST", 'published={"plain": {}}', False),  # the list itself counts then, being no list
        ("SPEED = 1.0", "SPEED = 1.5", False),
        ("def build(p):", "def build(p, q=0):", False),
        ("Family(name", "Family(episode_steps=3, name", False),
    ],
)
def test_the_code_of_a_family_is_what_decides_its_returns(old, new, same, tmp_path, monkeypatch):
    assert old in FILE
    family = types.SimpleNamespace(build=types.SimpleNamespace(__module__="made"))
    hashes = []
    for text in (FILE, FILE.replace(old, new)):
        directory = tmp_path / str(len(hashes))
        directory.mkdir()
        (directory / "made.py").write_text(text)
        monkeypatch.syspath_prepend(directory)
        hashes.append(family_code(family))
        del sys.modules["made"]
    assert (hashes[0] == hashes[1]) is same


def test_the_code_of_a_family_includes_what_it_is_made_from(monkeypatch):
    """The skills are a biped's, and both are made of blocks and rewards; the types are left out."""
    read = []
    source = inspect.getsource

    def recording(module):
        read.append(module.__name__)
        return source(module)

    monkeypatch.setattr("harness.family_code.inspect.getsource", recording)
    family_code(mtenvs.get_family("BipedSkills"))
    families = {"mtenvs.families.biped_skills", "mtenvs.families.biped"}
    assert set(read) == families | {"mtenvs.blocks", "mtenvs.rewards"}
    assert len(read) == 4


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="unknown task 'nobody'"):
        make_reference("Biped", TINY, ["nobody"])
    with pytest.raises(ValueError, match="unknown agent 'pp'"):
        make_reference("Biped", ReferenceConfig(learner="pp"))
    with pytest.raises(ValueError, match=r"no device 'cdua'.*valid: cpu"):
        make_reference("Biped", TINY, device="cdua")


def test_records_merge_only_if_made_alike(two):
    new = copy.deepcopy(two)
    new["tasks"] = {"newest": new["tasks"].pop(NAMES[0])}
    both = merge(two, new)
    assert list(both["tasks"]) == [NAMES[0], NAMES[-1], "newest"]
    new["config"]["steps"] = 65
    with pytest.raises(ValueError, match=r"made with steps = 64, not 65\. .*--fresh$"):
        merge(two, new)
    new["family_code"] = "another"
    with pytest.raises(ValueError, match=r"steps = 64, not 65; other code of the family\. .*--restamp$"):
        merge(two, new)


def test_a_task_of_other_parameters_is_measured_again(two):
    record = copy.deepcopy(two)
    assert unmeasured(mtenvs.get_family("Biped"), record) == NAMES[1:-1]
    record["tasks"][NAMES[-1]]["parameters"]["foot_length"] += 0.01
    assert unmeasured(mtenvs.get_family("Biped"), record) == NAMES[1:]


def test_restamping_touches_no_number(two):
    record = copy.deepcopy(two)
    del record["family_code"], record["tasks"][NAMES[0]]["parameters"]
    parameters = record["tasks"][NAMES[-1]]["parameters"]
    length = parameters["foot_length"]
    parameters["foot_length"] = length + 0.01
    again = restamped(mtenvs.get_family("Biped"), record)
    assert unmeasured(mtenvs.get_family("Biped"), again) == NAMES[1:]  # of another body, code or not
    again["tasks"][NAMES[-1]]["parameters"]["foot_length"] = length
    assert again == two


def test_restamping_takes_new_hyperparameters_in_and_refuses_changed_ones(two):
    older = copy.deepcopy(two)
    del older["learner"]["config"]["architecture"]
    assert restamped(mtenvs.get_family("Biped"), older)["learner"] == two["learner"]
    older["learner"]["config"]["gamma"] = 0.5
    with pytest.raises(ValueError, match=r"other hyperparameters \(gamma\): .*--fresh"):
        restamped(mtenvs.get_family("Biped"), older)


def test_the_command_measures_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("harness.cli.shortcomings", lambda record: [])  # two rollouts teach nobody
    path = tmp_path / "scores.json"
    first = ["reference", "Biped", *WORDS.split(), "--out", str(path)]
    words = ["reference", "Biped", "--out", str(path)]  # the file knows the settings
    main(first)
    assert f"wrote {path}" in capsys.readouterr().out
    whole = json.loads(path.read_text())
    assert sorted(whole["tasks"]) == sorted(NAMES)
    main(words)
    assert "has scores of all tasks" in capsys.readouterr().out
    # what speaks against a task is said whenever it is asked for, not only when it is measured
    monkeypatch.setattr("harness.cli.shortcomings", lambda record: ["one is hopeless"])
    with pytest.raises(SystemExit):
        main(words)
    assert "these tasks should not be published: one is hopeless" in capsys.readouterr().err
    monkeypatch.setattr("harness.cli.shortcomings", lambda record: [])
    partly = copy.deepcopy(whole)
    del partly["tasks"][NAMES[1]]
    partly["tasks"][NAMES[0]]["zero"]["mean"] = 123.0  # kept as it is
    write_reference(partly, path)
    monkeypatch.setattr("harness.cli.make_reference", None)  # refused before anything is trained
    for other, named in (("--steps 1000000", "steps = 64, not 1000000"), ("--seeds 3", "seeds = 2, not 3")):
        with pytest.raises(SystemExit):
            main([*words, *other.split()])
        said = " ".join(capsys.readouterr().err.split())
        assert f"were made with {named}. Leave out" in said
        assert "anew with --fresh" in said
    monkeypatch.setattr("harness.cli.make_reference", make_reference)
    main(words)
    again = json.loads(path.read_text())["tasks"]
    assert again[NAMES[0]]["zero"]["mean"] == 123.0
    assert again[NAMES[1]]["random"] == whole["tasks"][NAMES[1]]["random"]
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]
    write_reference({**json.loads(path.read_text()), "family_code": "another"}, path)
    with pytest.raises(SystemExit):
        main(words)
    assert "say so with --restamp" in " ".join(capsys.readouterr().err.split())
    main([*words, "--restamp"])
    main(words)
    assert "has scores of all tasks" in capsys.readouterr().out
    assert json.loads(path.read_text())["tasks"] == again


def test_the_command_says_what_is_not_learnable_and_keeps_the_file(tmp_path, capsys):
    path = tmp_path / "scores.json"
    with pytest.raises(SystemExit) as stop:
        main(["reference", "Biped", *WORDS.split(), "--out", str(path)])
    assert stop.value.code == 2
    assert "these tasks should not be published" in capsys.readouterr().err
    assert path.is_file()
