"""Anyone's agent goes through the whole protocol; one that misbehaves is named and costs only itself."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

import mtenvs
from baselines.agent import Agent
from baselines.learner import STARTS, Learner, Start
from baselines.registry import AGENTS, describe_learner, find_agent, load_policy, make_learner, widened
from harness.plan import PRESETS, PlanError, load_plan, make_plan, write_plan
from harness.report import write_report
from harness.run import TrainingError, make_worlds, run_plan
from harness.store import Store

ROOT = Path(__file__).parents[1]
SOURCES = len(mtenvs.tasks("Biped")) - 1
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/agents.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A directory with the agent of the page, and nothing else."""
    directory = tmp_path_factory.mktemp("page")
    (directory / "my_agent.py").write_text(BLOCKS[0])
    return directory


def command(directory, *words):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from harness.__main__ import main; main()", *map(str, words)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(page):
    """The quick experiment with the page's agent, small."""
    words = ["loo", "Biped", "--agent", "my_agent:SmallPPO", "--preset", "quick", "--out", "small"]
    words += ["--folds", 5, "--seeds", 1, "--worlds-per-run", SOURCES, "--budget", 128 * SOURCES]
    words += ["--pretrain-budget", 64 * SOURCES, "--checkpoints", 4, "--episodes", 2]
    words += ["--hyperparameters", "epochs=2"]
    done = command(page, *words)
    assert done.returncode == 0, done.stderr
    return page / "small"


def test_the_page_has_one_agent_of_about_forty_lines():
    assert len(BLOCKS) == 1
    assert 35 <= sum(bool(line.strip()) for line in BLOCKS[0].splitlines()) <= 48


def test_the_agent_of_the_page_goes_through_the_protocol(finished):
    plan, store = load_plan(finished), Store(finished)
    learner = plan["learner"]
    assert (learner["name"], learner["version"]) == ("my_agent:SmallPPO", "1")
    assert learner["config"]["epochs"] == 2
    assert (learner["config"]["num_steps"], learner["rollout"]) == (32, 32)
    assert set(store.status().values()) == {"finished"}
    assert {len(cohort) for cohort in plan["cohorts"]} == {1}
    for run in plan["runs"]:
        done = json.loads((finished / "runs" / run["id"] / "done.json").read_text())
        assert done["steps"] == run["steps"]
        assert done["parameters"] == learner["parameters"] > 0
    # transfer begins as pretraining ended, and not as scratch does
    table = store.evaluations()
    first = table[(table["phase"] == "learn") & (table["checkpoint"] == 0)]
    assert first["return_mean"].nunique() == 2
    text = (finished / "report/index.html").read_text()
    assert "my_agent:SmallPPO" in text


@pytest.mark.slow
def test_equal_seeds_give_equal_rows_in_any_number_of_processes(finished, page):
    again = page / "again"
    write_plan(load_plan(finished), again)
    done = command(page, "run", "again", "--agent", "my_agent:SmallPPO", "--processes", 1)
    assert done.returncode == 0, done.stderr
    rows = {p.parent.name: p.read_bytes() for p in finished.glob("runs/*/rows.jsonl")}
    assert rows == {p.parent.name: p.read_bytes() for p in again.glob("runs/*/rows.jsonl")}


def test_no_file_says_what_code_is_run(finished, page, monkeypatch):
    plan = load_plan(finished)
    new = write_plan(plan, page / "new").parent
    done = command(page, "run", "new")
    assert done.returncode == 2
    assert "add --agent my_agent:SmallPPO" in " ".join(done.stderr.split())
    with pytest.raises(PlanError, match="is of agent 'my_agent:SmallPPO', not of 'ppo'"):
        run_plan(new, agent="ppo")
    checkpoint = next((finished / "checkpoints").iterdir())
    with pytest.raises(ValueError, match="add --agent my_agent:SmallPPO"):
        load_policy(checkpoint, "Biped")
    assert "my_agent" not in sys.modules
    monkeypatch.syspath_prepend(page)
    policy = load_policy(checkpoint, "Biped", agent="my_agent:SmallPPO")
    assert policy.act(np.zeros((1, 40), np.float32)[:, : _size()]).shape == (1, 6)
    other = find_agent("my_agent:SmallPPO")
    monkeypatch.setattr(other, "version", "2")
    with pytest.raises(PlanError, match="made for version '1' of agent my_agent:SmallPPO, this is '2'"):
        run_plan(new, agent="my_agent:SmallPPO")
    with pytest.raises(ValueError, match="learner_version = '1', this learner needs '2'"):
        load_policy(checkpoint, "Biped", agent="my_agent:SmallPPO")
    del sys.modules["my_agent"]


def _size():
    return make_worlds("Biped", [[0]], 1, "descriptor").observation_slices.size


FAULTS = """
import os

import numpy as np

from baselines.agent import Agent

KINDS = "good shape nan_action nan_training nan_weights few many raises exits dies".split()


class Faulty(Agent):
    hyperparameters = {"num_steps": 10}

    def __init__(self, worlds, seed, config, device="cpu"):
        super().__init__(worlds, seed, config, device)
        self.kind, self.weights = KINDS[seed % len(KINDS)], np.zeros(worlds.num_actions)
        self.late = False

    def learn(self, worlds, steps):
        self.reset(worlds)
        self.late, kind = True, self.kind
        if kind == "dies":
            os._exit(3)
        if kind == "exits":
            raise SystemExit(3)
        if kind == "raises":
            raise KeyError("no such thing")
        if kind == "nan_training":
            self.weights[1] = np.nan
        factor = {"few": 0.5, "many": 2.0}.get(kind, 1.0)
        for _ in range(int(factor * steps) // worlds.num_envs):
            worlds.step(np.tile(self.weights, (worlds.num_envs, 1)))
        if kind == "nan_weights":
            self.weights[0] = np.inf

    def act(self, observations):
        actions = np.tile(self.weights, (len(observations), 1))
        if self.late and self.kind == "nan_action":
            actions[0, 0] = np.nan
        return actions[:, :-1] if self.late and self.kind == "shape" else actions

    def state(self):
        return {"weights": self.weights}

    def restore(self, state):
        self.weights = state["weights"].numpy()
"""
WHY = {
    "shape": r"action has shape \(\d+, 5\), expected \(\d+, 6\)",
    "few": r"was to train until 70 steps per run.* has taken 35",
    "many": r"was to train until 70 steps per run.* has taken 140",
    "raises": r"KeyError: 'no such thing'",
    "exits": r"SystemExit: 3",
    "dies": r"agent faulty:Faulty ended the process that trained it, with exit code 3",
}


def test_a_run_that_fails_costs_only_itself_and_says_why(tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text(textwrap.dedent(FAULTS))
    monkeypatch.syspath_prepend(tmp_path)
    learner = dataclasses.asdict(describe_learner("faulty:Faulty", "Biped"))
    preset = dataclasses.replace(
        PRESETS["quick"], agent="faulty:Faulty", folds=(5,), seeds=8, root_seed=9,
        checkpoints=4, episodes=2, worlds_per_run=SOURCES,
        budget=30 * SOURCES, pretrain_budget=10 * SOURCES,
    )  # fmt: skip
    plan = make_plan("Biped", preset, learner)
    directory = write_plan(plan, tmp_path / "faulty").parent
    kinds = sys.modules["faulty"].KINDS
    kind = {run["id"]: kinds[run["entropy"] % len(kinds)] for run in plan["runs"]}
    assert set(kind.values()) == set(kinds)
    with pytest.raises(TrainingError, match=r"runs failed or could not begin"):
        run_plan(directory, agent="faulty:Faulty", processes=2)
    store = Store(directory)
    status = store.status()
    expected = dict.fromkeys(kinds, "failed") | {"good": "finished"}
    expected |= dict.fromkeys([k for k in kinds if k.startswith("nan")], "diverged")
    # from a network that has diverged nothing can be learned, whatever the fault of the learner
    starts = {run["id"]: run["start"] for run in plan["runs"]}
    lost = {i for i in status if kind.get(starts[i], "").startswith("nan")}
    assert {status[i] for i in lost} == {"diverged"}
    begun = {i for i, s in status.items() if s != "missing"} - lost
    assert {(kind[i], status[i]) for i in begun} == set(expected.items())
    # what could not begin is what would have started from one that failed
    unbegun = {i for i in status if status[i] == "missing"}
    assert unbegun == {i for i in status if status.get(starts[i]) == "failed"} != set()
    for run_id, name in ((i, kind[i]) for i in begun):
        done = json.loads((directory / "runs" / run_id / "done.json").read_text())
        assert re.search(WHY.get(name, "^$"), done.get("error", "")), (name, done)
    table = store.evaluations()
    table["kind"] = table["run"].map(kind)
    later = table[table["kind"].str.startswith("nan") & (table["checkpoint"] > 0)]
    assert later["return_mean"].isna().all()
    assert table[table["kind"] == "good"]["return_mean"].notna().all()
    text = write_report(directory).read_text()
    assert "incomplete" in text
    del sys.modules["faulty"]


def test_an_agent_that_cannot_be_planned_with_says_why(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text(
        "from baselines.agent import Agent\n"
        "class Half(Agent):\n"
        "    def act(self, observations): pass\n"
        "class Whole(Half):\n"
        "    hyperparameters = {'rate': 0.1, 'name': 'x', 'hidden': [3]}\n"
        "    def learn(self, worlds, steps): pass\n"
        "class Typo(Whole):\n"
        "    starts = frozenset({'freeze'})\n"
        "1 / (__name__ == 'half')\n"
    )
    (tmp_path / "broken_half.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, message in {
        "half:Half": r"lacks learn\(\)",
        "half:Third": "has no 'Third'",
        "half:Agent.act": "must be a subclass of baselines.agent.Agent",
        "half:Typo": r"unknown starts \['freeze'\]",
        "broken_half:X": r"cannot be imported: ZeroDivisionError: .* \(.*broken_half\.py, line 1\)",
        "half.py:Whole": "without the file's ending: half:Whole",
        "sb3:SAC": "did you mean 'sb3:sac'",
        "PPO": "did you mean 'ppo' or 'sb3:ppo'",
        "no_such_module:X": "cannot be imported: ModuleNotFoundError",
        "half": "unknown agent 'half'",
        "sb3:sca": "did you mean 'sb3:sac'",
        "half:Whole": r"cannot be made: AttributeError: .*networks.* \(.*agent\.py, line \d+\)",
    }.items():
        with pytest.raises(ValueError, match=message):
            describe_learner(name, "Biped")
    for changes, message in (
        ({"rat": 1}, r"unknown hyperparameters \['rat'\].*did you mean 'rate'"),
        ({"rate": "fast"}, "rate of agent half:Whole is of the kind of 0.1, got 'fast'"),
        ({"rate": True}, "got True"),
        ({"hidden": 3}, "got 3"),
        ({"name": [3]}, r"got \[3\]"),
        ({"rate": None}, "got None"),
    ):
        with pytest.raises(ValueError, match=message):
            describe_learner("half:Whole", "Biped", changes)
    del sys.modules["half"]


class Still(Agent):
    """Learns nothing."""

    hyperparameters = {"num_steps": 5}

    def learn(self, worlds, steps):
        self.reset(worlds)
        for _ in range(steps // worlds.num_envs):
            worlds.step(np.zeros((worlds.num_envs, worlds.num_actions)))

    def act(self, observations):
        return np.zeros((len(observations), 6))

    def state(self):
        return {"bias": np.zeros(6), "flag": np.array([True])}

    def restore(self, state):
        assert state["flag"].dtype == torch.bool


def test_an_agent_is_a_learner_and_its_checkpoint_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setitem(AGENTS, "still", f"{__name__}:Still")
    monkeypatch.setattr(Still, "name", "still")
    worlds = make_worlds("Biped", [[0]], 3, "descriptor")
    agent = make_learner("still", {}, worlds, [4])
    assert isinstance(agent, Learner)
    seen = []
    assert agent.train(worlds, 30, seen.append) == 30 == sum(seen)
    assert agent.train(worlds, 30) == 30
    agent.save(0, tmp_path / "saved")
    assert sorted(p.suffix for p in (tmp_path / "saved").iterdir()) == [".json", ".safetensors"]
    agent.load(0, tmp_path / "saved")
    for switch in sorted(STARTS):
        start = Start(part=switch) if switch in ("normalizer", "shuffled") else Start(**{switch: True})
        with pytest.raises(ValueError, match=f"agent still cannot start with {switch}; it offers nothing"):
            agent.load(0, tmp_path / "saved", start)
    blind = make_learner("still", {}, make_worlds("Biped", [[0]], 3, "none"), [4])
    with pytest.raises(ValueError, match="conditioning = 'descriptor', this learner needs 'none'"):
        blind.load(0, tmp_path / "saved")


def test_what_is_lent_follows_from_the_seed_alone():
    worlds = make_worlds("Biped", [[0]], 3, "descriptor")

    def draws(seed):
        agent = Still(worlds, seed, {})
        state = torch.random.get_rng_state()
        with agent.seeded():
            weights = torch.rand(4)
        assert torch.equal(torch.random.get_rng_state(), state)
        return agent.reset(worlds), weights.numpy(), torch.rand(4, generator=agent.noise).numpy()

    first = draws(7)
    torch.rand(3)
    for a, b, c in zip(first, draws(7), draws(8), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_what_followed_is_the_final_observation_where_an_episode_ended():
    worlds = make_worlds("Biped", [[0, 1]], 2, "descriptor")
    worlds.reset(seed=0, options={"elapsed_steps": worlds.episode_limits - [1, 2, 1, 2]})
    observations, _, _, truncated, info = worlds.step(np.zeros((4, 6)))
    assert truncated.tolist() == [True, False, True, False]
    followed = Agent.followed(observations, info)
    for i in range(4):
        wanted = info["final_obs"][i] if truncated[i] else observations[i]
        np.testing.assert_array_equal(followed[i], wanted)
        assert (not np.array_equal(followed[i], observations[i])) == truncated[i]


def test_a_checkpoint_is_of_the_name_that_its_agent_was_found_by(tmp_path, monkeypatch):
    (tmp_path / "pk").mkdir()
    (tmp_path / "pk/inner.py").write_text(
        "from baselines.ppo import PPO\nfrom test_agents import Still\n"
        "class Mine(Still):\n    name = 'mine'\n"
        "class Derived(PPO):\n    pass\n"
    )
    (tmp_path / "pk/__init__.py").write_text("from pk.inner import Derived, Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_agents", sys.modules[__name__])
    for name in ("pk:Mine", "pk:Derived"):
        worlds = make_worlds("Biped", [[0]], 1, "descriptor")
        config = describe_learner(name, "Biped").config
        make_learner(name, config, worlds, [0]).save(0, tmp_path / "saved")
        load_policy(tmp_path / "saved", "Biped", agent=name)
        with pytest.raises(ValueError, match=f"is of agent '{name}', not of 'ppo'"):
            load_policy(tmp_path / "saved", "Biped", agent="ppo")
        with pytest.raises(ValueError, match=f"add --agent {name}"):
            load_policy(tmp_path / "saved", "Biped")


def test_what_agents_declare_must_hold(monkeypatch):
    with pytest.raises(TypeError, match="an Agent trains one run at a time"):

        class Many(Still):
            many_runs = True

    class Promising(Still):
        starts = frozenset({"shuffled"})

    with pytest.raises(NotImplementedError, match=r"does not know of \{'shuffled'\}"):
        Promising(make_worlds("Biped", [[0]], 1, "descriptor"), 0, {}).started({}, Start(part="shuffled"))

    class Rigid(Still):
        hyperparameters = {"hidden": [4]}

    monkeypatch.setitem(AGENTS, "rigid", f"{__name__}:Rigid")
    monkeypatch.setattr(sys.modules[__name__], "Rigid", Rigid, raising=False)
    with pytest.raises(ValueError, match="cannot be made wider"):
        widened("rigid", "Biped", {"hidden": [4]}, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"update_epochs": 0}, "update_epochs must be at least 1"),
        ({"learning_rate": -1}, "learning_rate must be positive, got -1"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\]"),
        ({"gamma": None}, "is of the kind of 0.99, got None"),
        ({"hidden": [0]}, r"hidden .* got \[0\]"),
        ({"hidden": None}, "got None"),
        ({"vf_coef": -0.1}, "vf_coef must not be negative"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        describe_learner("ppo", "Biped", changes)


def test_own_layers_have_no_blind_arm():
    with pytest.raises(ValueError, match=r"arm blind nothing is told: leave it out of --arms"):
        describe_learner("ppo", "Biped", {"architecture": "own_layers"}, conditioning="one_hot", blind=True)


@pytest.mark.parametrize("weights", ["finite", "not finite"])
def test_what_starts_from_a_diverged_network_has_diverged(tmp_path, weights):
    worlds = make_worlds("Biped", [[0], [0]], 2, "descriptor")
    config = {"num_steps": 4, "num_minibatches": 2}
    broken = make_learner("ppo", config, worlds, [1, 2])
    if weights == "finite":  # as after a bad gradient: it keeps its last good weights
        broken._active[0] = False
    else:
        broken._parameters.flat.data[0, 3] = float("nan")
        broken.train(worlds, 8)
    assert broken.diverged().tolist() == [True, False]
    for run in range(2):
        broken.save(run, tmp_path / str(run))
    learner = make_learner("ppo", config, worlds, [3, 4])
    for run in range(2):
        learner.load(run, tmp_path / str(run))
    learner.train(worlds, 8)
    assert learner.diverged().tolist() == [True, False]
    with pytest.raises(ValueError, match="has diverged"):
        load_policy(tmp_path / "0", "Biped")
