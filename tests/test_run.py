"""From a plan to stored rows: a tiny experiment, killed and continued."""

import dataclasses
import shutil
from pathlib import Path

import pytest

import harness.run
from baselines.registry import describe_learner
from harness.cli import main
from harness.plan import PRESETS, PlanError, load_plan, make_plan, write_plan
from harness.run import checkpoint_path, evaluation_seeds, pending_steps, run_plan
from harness.store import Store

TINY = dataclasses.replace(
    PRESETS["quick"],
    folds=(5,),
    seeds=2,
    budget=700,
    pretrain_budget=448,
    worlds_per_run=7,
    checkpoints=4,
    episodes=2,
    first_episodes=100,
)


def tiny(directory: Path) -> Path:
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    write_plan(make_plan("Biped", TINY, learner, "quick"), directory)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tiny(tmp_path_factory.mktemp("run") / "tiny")
    seen = []
    total = pending_steps(directory)
    run_plan(directory, progress=seen.append)
    assert sum(seen) >= total > 0
    return directory


def rows(directory: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted(directory.glob("runs/*/rows.jsonl"))}


def test_every_run_finishes_with_all_its_rows(finished):
    plan, store = load_plan(finished), Store(finished)
    assert set(store.status().values()) == {"finished"}
    assert pending_steps(finished) == 0
    table = store.evaluations()
    learned = table[table["phase"] == "learn"]
    for _, run in learned.groupby("run"):
        assert run["steps"].tolist() == plan["checkpoints"]
        assert set(run["task"]) == {"child"}
        assert run["episodes"].tolist() == [100] + [2] * (len(plan["checkpoints"]) - 1)
    for _, run in table[table["phase"] == "pretrain"].groupby("run"):
        assert len(run) == 8  # seven sources and the held-out task


def test_transfer_starts_where_pretraining_ended(finished):
    table = Store(finished).evaluations()
    starts = table[(table["phase"] == "learn") & (table["checkpoint"] == 0)].set_index("run")["return_mean"]
    scratch = [v for k, v in starts.items() if "scratch" in k]
    transfer = [v for k, v in starts.items() if "transfer" in k]
    assert not set(scratch) & set(transfer)
    plan = load_plan(finished)
    for run in plan["runs"]:
        if run["phase"] == "pretrain":
            assert (checkpoint_path(finished, run["id"]) / "tensors.safetensors").is_file()


def test_running_again_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(harness.run, "make_learner", lambda *a: pytest.fail("trained again"))
    run_plan(finished)


def test_a_killed_run_started_again_ends_with_the_same_rows(finished, tmp_path, monkeypatch):
    directory = tiny(tmp_path / "killed")
    append, calls = Store.append, []

    def killed(self, new):
        calls.append(1)
        if len(calls) == 4:  # in the middle of the second cohort
            raise KeyboardInterrupt
        append(self, new)

    monkeypatch.setattr(Store, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        run_plan(directory)
    monkeypatch.setattr(Store, "append", append)
    status = Store(directory).status()
    assert {s for i, s in status.items() if i.startswith("pretrain")} == {"finished"}
    assert "finished" not in {s for i, s in status.items() if i.startswith("learn")}
    run_plan(directory)
    assert rows(directory) == rows(finished)


def test_a_missing_run_is_trained_beside_the_same_neighbours(finished, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(finished, directory)
    victim = next(p for p in (directory / "runs").iterdir() if p.name.startswith("learn-5-scratch-1"))
    kept = next(p for p in (directory / "runs").iterdir() if p.name.startswith("learn-5-transfer-0"))
    before = (kept / "done.json").stat().st_mtime_ns
    shutil.rmtree(victim)
    run_plan(directory)
    assert rows(directory) == rows(finished)
    assert (kept / "done.json").stat().st_mtime_ns == before


def test_evaluation_starts_are_shared_by_arms_and_fresh_at_every_checkpoint():
    first = evaluation_seeds(0, task=5, checkpoint=1, episodes=16)
    assert first == evaluation_seeds(0, task=5, checkpoint=1, episodes=16)
    assert not set(first) & set(evaluation_seeds(0, task=5, checkpoint=2, episodes=16))
    assert not set(first) & set(evaluation_seeds(1, task=5, checkpoint=1, episodes=16))


def test_a_diverged_run_is_marked_and_the_others_go_on(tmp_path, monkeypatch):
    directory = tiny(tmp_path / "diverging")
    make = harness.run.make_learner

    def poisoned(name, config, worlds, seeds, device):
        learner = make(name, config, worlds, seeds, device)
        if worlds.family.name == "Biped" and len(seeds) == 4:
            learner._parameters.flat.data[1] = float("nan")
        return learner

    monkeypatch.setattr(harness.run, "make_learner", poisoned)
    monkeypatch.setattr("baselines.ppo.PPO.load", lambda *a, **k: None)
    run_plan(directory)
    status = Store(directory).status()
    assert sorted(status.values()).count("diverged") == 1


def test_loo_plans_trains_and_reports(tmp_path, capsys):
    words = "--preset quick --folds 5 --seeds 2 --budget 700 --pretrain-budget 448 --worlds-per-run 7"
    rest = f"--checkpoints 4 --episodes 2 --first-episodes 100 --out {tmp_path / 'loo'}"
    main(["loo", "Biped", *words.split(), *rest.split()])
    assert (tmp_path / "loo" / "report" / "index.html").is_file()
    out = capsys.readouterr().out
    assert "index.html" in out.replace("\n", "")
    assert "child" in out
    main(["loo", "Biped", *words.split(), *rest.split()])
    assert "nothing left to train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "Bipd"], "did you mean 'Biped'"),
        (["loo", "Biped", "--preset", "quik"], "valid: quick, standard"),
        (["loo", "Biped", "--preset", "quick", "--learner", "sac"], "unknown learner 'sac'"),
        (["run", "nowhere"], "holds no plan.json"),
        (["report", "nowhere"], "holds no plan.json"),
    ],
)
def test_bad_input_ends_with_a_message_and_touches_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().out.split())
    assert not list(tmp_path.iterdir())


def test_loo_leaves_a_foreign_directory_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(SystemExit):
        main(["loo", "Biped", "--preset", "quick", "--out", str(tmp_path)])
    assert "is not empty" in " ".join(capsys.readouterr().out.split())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_tasks_and_plan_print_what_there_is(tmp_path, capsys):
    main(["tasks"])
    main(["tasks", "Biped"])
    main(["plan", "Biped", "--preset", "quick", "--out", str(tmp_path / "p")])
    out = capsys.readouterr().out
    assert "mt/Biped-v0" in out
    assert "limping" in out
    assert "18 runs" in out
    other = make_plan("Biped", TINY, dataclasses.asdict(describe_learner("ppo", "Biped")))
    with pytest.raises(PlanError, match="another plan"):
        write_plan(other, tmp_path / "p")
