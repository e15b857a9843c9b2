"""A plan on worlds of a device, here of the CPU: the same plan, the same start states, its own rows."""

import dataclasses
import json

import numpy as np
import pytest

import harness.run
import mtenvs
from baselines.registry import describe_learner
from harness.cli import main
from harness.compare import leaderboard
from harness.plan import COHORT_RUNS, PRESETS, PlanError, load_plan, make_plan, write_plan
from harness.report import summary_table, write_report
from harness.run import (
    check_unmixed,
    choose_backend,
    estimate_cost,
    run_command,
    run_plan,
    runs_that_fit,
)
from harness.store import Store
from mtenvs.backends import mujoco_warp
from mtenvs.device_env import DeviceVectorEnv

SOURCES = len(mtenvs.tasks("Biped")) - 1
PRESET = dataclasses.replace(
    PRESETS["quick"],
    folds=(5,),
    seeds=2,
    arms=("scratch", "transfer"),
    budget=3 * 32 * SOURCES,
    pretrain_budget=32 * SOURCES,
    worlds_per_run=SOURCES,
    checkpoints=4,
    episodes=2,
    first_episodes=100,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same plan on both backends."""
    made = []
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    plan = make_plan("Biped", PRESET, learner, "quick")
    counted = []
    for backend in ("batch", "warp"):
        directory = tmp_path_factory.mktemp(backend) / "plan"
        write_plan(plan, directory)
        with pytest.MonkeyPatch.context() as patch:
            if backend == "warp":
                made_by = DeviceVectorEnv.__init__

                def counting(self, *args, made_by=made_by, **options):
                    counted.append(options["tasks"])
                    made_by(self, *args, **options)

                patch.setattr(DeviceVectorEnv, "__init__", counting)
            run_plan(directory, backend=backend)
        made.append(directory)
    return plan, made, counted


def test_every_run_finishes_and_says_where_it_was_made(trained):
    plan, (batch, warp), _ = trained
    for directory, backend in ((batch, "batch"), (warp, "warp")):
        assert set(Store(directory).status().values()) == {"finished"}
        for run in plan["runs"]:
            done = json.loads((directory / "runs" / run["id"] / "done.json").read_text())
            assert (done["backend"], done["device"], done["steps"]) == (backend, "cpu", run["steps"])
            assert ("mujoco-warp" in done["versions"]) == (backend == "warp")
    assert "incomplete" not in write_report(warp).read_text().split("<h1>")[1].split("</h1>")[0]


def test_reports_and_comparisons_say_what_stepped_the_worlds(trained):
    _, (batch, warp), _ = trained
    said = "Worlds were stepped by MuJoCo Warp."
    assert said in summary_table(warp)
    assert said in write_report(warp).read_text()
    assert "stepped by" not in summary_table(batch)
    for directory in (batch, warp):
        (mark,) = leaderboard(directory.parent).table["marks"]
        assert ("physics warp" in mark) == (directory == warp)


def test_an_untrained_network_is_worth_the_same_on_both(trained):
    """Equal seeds give equal networks and equal start states: only rounding is between them."""
    _, directories, _ = trained
    tables = [Store(directory).evaluations() for directory in directories]
    keys = ["run", "checkpoint", "task", "code"]
    rows = [table.sort_values(keys).reset_index(drop=True) for table in tables]
    assert rows[0][keys].equals(rows[1][keys])
    first = (rows[0]["arm"] == "scratch") & (rows[0]["checkpoint"] == 0)
    assert first.sum() == PRESET.seeds
    for name, tolerance in (("return_mean", 0.02), ("length_mean", 0.01), ("success", 0.0)):
        np.testing.assert_allclose(rows[0][first][name], rows[1][first][name], rtol=tolerance, atol=1e-3)
    # and learning is another random stream
    assert not np.allclose(rows[0]["return_mean"], rows[1]["return_mean"], rtol=0.02)


def test_worlds_to_evaluate_in_are_made_once_and_used_again(trained):
    plan, _, made = trained
    evaluations = 2 * len(plan["checkpoints"])
    # of both cohorts those that are trained on; then sources, the held-out task with three codes; and the
    # held-out task at step 0 and at later checkpoints
    assert len(made) == 2 + 4 + 2 < evaluations


@pytest.mark.slow
def test_what_is_missing_is_trained_beside_the_same_neighbours(trained, tmp_path):
    plan, (_, warp), _ = trained
    before = {path.parent.name: path.read_text() for path in warp.glob("runs/*/rows.jsonl")}
    gone = next(run["id"] for run in plan["runs"] if run["arm"] == "transfer" and run["phase"] == "learn")
    Store(warp).discard(gone)
    run_plan(warp, backend="warp")
    assert {path.parent.name: path.read_text() for path in warp.glob("runs/*/rows.jsonl")} == before


def test_the_cost_is_estimated_there(trained, monkeypatch):
    monkeypatch.setattr(harness.run, "PROBE_SECONDS", 0.2)
    cost = estimate_cost(trained[1][1], backend="warp")
    assert 0 < cost.train_speed < 1e5
    assert cost.hours > 0


def test_the_backend_follows_from_agent_and_device(monkeypatch):
    assert choose_backend("ppo") == "batch"
    assert choose_backend("ppo", backend="warp") == "warp"
    with pytest.raises(ValueError, match=r"unknown backend 'wrap' \(did you mean 'warp'"):
        choose_backend("ppo", backend="wrap")
    with pytest.raises(ValueError, match="sb3:ppo trains on worlds of NumPy's arrays: leave out --backend"):
        choose_backend("sb3:ppo", backend="warp")
    monkeypatch.setattr(harness.run, "check_device", lambda *args: None)
    monkeypatch.setattr(harness.run, "check_warp", lambda device: None)
    assert choose_backend("ppo", "cuda") == "warp"
    assert choose_backend("ppo", "cuda", "batch") == "batch"
    assert choose_backend("sb3:ppo", "cuda") == "batch"


def test_a_gpu_trains_as_many_runs_at_once_as_it_holds(monkeypatch):
    standard, wide = PRESETS["standard"], PRESETS["wide"]
    assert runs_that_fit("Biped", standard, 32, "cpu", 458_752) == COHORT_RUNS
    each = mujoco_warp.bytes_per_world(mtenvs.model("Biped", 0), mujoco_warp.Sizes(8, 32, 8))
    given = {}
    for free in (2**37, 2**32, 1):
        monkeypatch.setattr(mujoco_warp, "free_bytes", lambda device, free=free: free)
        given[free] = runs_that_fit("Biped", standard, 32, "cuda", 458_752)
        # those it is trained in, those it is evaluated in, and what the learner keeps
        assert given[free] == 1 or given[free] * (56 + 4 * 112) * each < free
    assert given[2**37] == harness.run.MOST_RUNS > given[2**32] > given[1] == 1
    # what is stored at a time, and lost with it, is bounded too
    monkeypatch.setattr(mujoco_warp, "free_bytes", lambda device: 2**40)
    assert 1 < runs_that_fit("Biped", wide, 32, "cuda", wide.budget) * wide.budget <= harness.run.MOST_STEPS


def test_one_plan_keeps_to_one_backend(trained):
    _, (batch, warp), _ = trained
    for directory, other in ((batch, "warp"), (warp, "batch")):
        store = Store(directory)
        made = {"warp": "batch", "batch": "warp"}[other]
        check_unmixed(store, made, None)
        check_unmixed(store, other, other)  # whoever names it means it
        with pytest.raises(PlanError, match=f"made with backend '{made}', here it would be '{other}'"):
            check_unmixed(store, other, None)
    with pytest.raises(PlanError, match="go on as you began, with --device and --backend"):
        run_plan(warp)
    assert run_command(warp, "cuda", "warp") == f"mtenvs run {warp} --device cuda --backend warp"
    assert run_command(warp) == f"mtenvs run {warp}"


def test_a_plan_that_is_there_keeps_its_batches(tmp_path, monkeypatch):
    """Whatever memory is free when it is gone on with."""
    asked = iter((7, 9))
    monkeypatch.setattr("harness.cli.runs_that_fit", lambda *_: next(asked))
    monkeypatch.setattr("harness.cli.estimate_cost", lambda *_: harness.run.Cost(0.1, 1.0, 1.0, 1.0))
    words = ["plan", "Biped", "--preset", "quick", "--backend", "warp", "--out", str(tmp_path / "p")]
    for _ in range(2):
        main(words)
    assert load_plan(tmp_path / "p")["cohort_runs"] == 7


@pytest.mark.parametrize(
    ("kind", "longest"), [("loo", 1_500_000), ("matrix", 1_500_000), ("joint", 2 * 400_000)]
)
def test_what_fits_on_a_gpu_is_asked_for_the_longest_run(kind, longest, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("harness.cli.runs_that_fit", lambda *given: asked.append(given[-1]) or 7)
    monkeypatch.setattr("harness.cli.estimate_cost", lambda *_: harness.run.Cost(0.1, 1.0, 1.0, 1.0))
    words = ["--preset", "full", "--folds", "3", "5", "--backend", "warp", "--out", str(tmp_path / "p")]
    words += ["--control-folds", "3", "--seeds", "2", "--control-seeds", "2"] if kind == "loo" else []
    main(["plan", "Biped", "--kind", kind, *words])
    assert asked == [longest]


def test_the_command_line_hands_the_backend_on(tmp_path, monkeypatch, capsys):
    handed = []
    monkeypatch.setattr("harness.cli.run_plan", lambda *args: handed.append(args))
    words = f"--preset quick --folds 5 --seeds 1 --budget {3 * 32 * SOURCES} --pretrain-budget 1 "
    words += f"--worlds-per-run {SOURCES} --checkpoints 4 --backend warp"
    out = tmp_path / "loo"
    monkeypatch.setattr(harness.run, "PROBE_SECONDS", 0.2)
    main(["plan", "Biped", *words.split(), "--out", str(out), "--agent", "ppo"])
    assert "about" in capsys.readouterr().out  # measured there
    main(["run", str(out), "--backend", "warp"])
    assert handed[0][0] == out
    assert handed[0][5] == "warp"
    assert load_plan(out)["cohort_runs"] == COHORT_RUNS
    for given, message in (
        (["--device", "cuda"], "no device 'cuda' on this machine; valid: cpu"),
        (["--agent", "sb3:ppo"], "trains on worlds of NumPy's arrays"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["loo", "Biped", *words.split(), *given, "--out", str(tmp_path / "other")])
        assert stop.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "other").exists()
