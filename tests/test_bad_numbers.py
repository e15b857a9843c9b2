"""Numbers that are none, or too large: what a family computes, what a learner holds, what is acted with."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import SICK, actions, assert_same, sick
from test_resume import killed_after, planned, rows

import mtenvs
from baselines.checkpoint import load_state, save_state
from baselines.ppo import PPO, PPOConfig
from benchmarks import soak_physics
from harness.plan import load_plan
from harness.run import run_plan
from harness.store import Store
from mtenvs import registry
from mtenvs.adapters import sb3
from mtenvs.env import TaskEnv, check_action
from mtenvs.spec import FamilySet, NotFiniteError
from mtenvs.state import FASTEST, bad_numbers
from mtenvs.vector_env import TaskVectorEnv

BAD = {"SameStep": (math.nan, 1e300), "NextStep": (-math.inf, 1e30)}
"""Bad numbers, by the mode of the worlds that they are tried in."""


def finite(value: Any) -> bool:
    """Whether all in what reset and step return is finite."""
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, (tuple, list)):
        return all(map(finite, value))
    if value is None:
        return True
    array = np.asarray(value)
    return all(map(finite, array)) if array.dtype == object else bool(np.isfinite(array).all())


# ---- what a family computes


def test_what_counts_as_bad() -> None:
    observation, terms = np.zeros((7, 3)), {"a": np.zeros(7), "b": np.zeros(7)}
    observation[:4, 1] = (math.nan, math.inf, -1e10, 9.9e9)
    terms["a"][4], terms["b"][5] = math.nan, -1e300
    expected = [True, True, True, False, True, True, False]
    assert bad_numbers(observation, terms).tolist() == expected
    tensors = {name: torch.from_numpy(term) for name, term in terms.items()}
    assert bad_numbers(torch.from_numpy(observation), tensors).tolist() == expected


@pytest.mark.parametrize("speed", [FASTEST / 20, 2 * FASTEST, -2 * FASTEST])
def test_a_body_whose_joint_is_too_fast_ends_its_episode(speed: float) -> None:
    """What no time step can follow is diverged, long before MuJoCo calls its numbers bad."""
    vector = TaskVectorEnv("Biped", 2, tasks=[0, 1], autoreset_mode="NextStep")
    single = TaskEnv("Biped", 1)
    vector.reset(seed=0)
    single.reset(seed=0)
    for qvel in (vector._groups[0].backend.state.qvel[1], single.data.qvel):
        qvel[1] = abs(speed)  # up, where no floor is in the way
        qvel[0] = speed
    nothing = np.zeros((2, vector.num_actions))
    _, _, terminations, _, infos = vector.step(nothing)
    _, _, terminated, _, info = single.step(nothing[1])
    apart = abs(speed) > FASTEST
    assert infos["physics_diverged"].tolist() == [False, apart]
    assert info["physics_diverged"] == apart
    assert terminations.tolist() == [False, apart]
    assert terminated == apart


@pytest.mark.parametrize("where", ["observe", "reward"])
@pytest.mark.parametrize("mode", BAD)
def test_bad_numbers_of_a_family_end_the_episode(family: mtenvs.Family, mode: str, where: str) -> None:
    """Of their world alone, as diverged physics does; and the single environment agrees."""
    healthy = TaskVectorEnv(family, 3, tasks=[0, SICK, 2], autoreset_mode=mode)
    gentle = 0.2 * actions(healthy, 0, 4)  # or bodies would fall
    expected = [healthy.reset(seed=0), *(healthy.step(a) for a in gentle)]
    assert not expected[-1][2].any()
    for value in BAD[mode]:
        bad = sick(family, where, value, 2.5 * control_step(healthy))
        envs = TaskVectorEnv(bad, 3, tasks=[0, SICK, 2], autoreset_mode=mode)
        single = TaskEnv(bad, SICK)
        seen = [envs.reset(seed=0), *(envs.step(a) for a in gentle)]
        alone = [single.reset(seed=1), *(single.step(a[1]) for a in gentle[:3])]
        assert finite(seen)
        assert finite(alone)
        _, rewards, terminations, truncations, info = seen[3]
        final = info["final_info"] if mode == "SameStep" else info
        assert (rewards[1], terminations.tolist()) == (0.0, [False, True, False])
        assert not truncations.any()
        assert final["physics_diverged"].tolist() == [False, True, False]
        assert not final["success"][1]
        assert {final[f"reward_{term}"][1] for term in family.reward_terms} == {0.0}
        last = info["final_obs"][1] if mode == "SameStep" else seen[3][0][1]
        np.testing.assert_array_equal(last, seen[2][0][1])
        np.testing.assert_array_equal(last, alone[3][0])
        assert alone[3][1:4] == (0.0, True, False)
        assert alone[3][4] == {key: final[key][1] for key in alone[3][4]}
        for ours, theirs in zip(seen[1:], expected[1:], strict=True):
            for mine, other in zip(ours[:4], theirs[:4], strict=True):
                np.testing.assert_array_equal(mine[[0, 2]], other[[0, 2]])


def control_step(envs: TaskVectorEnv) -> float:
    group = envs._groups[0]
    return float(group.family.frame_skip * group.backend.models[0].opt.timestep)


@pytest.mark.parametrize("how", ["observe", "start"])
def test_a_start_with_bad_numbers_is_shown_as_zeros_and_ends_at_once(how: str) -> None:
    """Also from a state that was saved in between; what is not the body's is shown as ever."""
    family = mtenvs.get_family("Octopus")  # with padding

    def start(home: Any, draws: Any) -> Any:
        qpos, qvel = family.start(home, draws)
        return np.where(home[:, :1] == home[:, :1], math.nan, qpos), qvel

    bad = sick(family, "observe", math.nan, -1.0)
    if how == "start":
        bad = dataclasses.replace(family, start=start)
    tasks = [SICK] if how == "start" else [0, SICK, 2]
    world = tasks.index(SICK)
    envs, single = TaskVectorEnv(bad, len(tasks), tasks=tasks), TaskEnv(bad, SICK)
    healthy = TaskVectorEnv(family, 3, tasks=[0, SICK, 2])
    body = np.zeros(envs.observation_slices.body.stop)
    shown, alone, others = envs.reset(seed=0)[0], single.reset(seed=0)[0], healthy.reset(seed=0)[0]
    rest = slice(envs.observation_slices.body.stop, None)
    for _ in range(3):
        for observation in (shown[world], alone):
            np.testing.assert_array_equal(observation[: len(body)], body)
            np.testing.assert_array_equal(observation[rest], others[1][rest])
        state = envs.get_state()
        envs = TaskVectorEnv(bad, len(tasks), tasks=tasks)
        envs.set_state(state)
        action = np.full(envs.action_space.shape, 0.5)
        shown, rewards, terminations, _, info = envs.step(action)
        assert (rewards[world], terminations[world]) == (0.0, True)
        assert info["final_info"]["physics_diverged"][world]
        np.testing.assert_array_equal(info["final_obs"][world][: len(body)], body)
        alone, reward, terminated, _, told = single.step(action[world])
        assert (reward, terminated, told["physics_diverged"]) == (0.0, True, True)
        alone = single.reset()[0]
        if how == "observe":  # the neighbours notice nothing
            others = healthy.step(np.full((3, 9), 0.5))[0]
            np.testing.assert_array_equal(shown[[0, 2]], others[[0, 2]])


def test_bad_numbers_cost_the_other_families_of_a_set_nothing() -> None:
    first, second = mtenvs.get_family("Biped"), mtenvs.get_family("Octopus")

    def played(one: mtenvs.Family) -> list[Any]:
        tasks = [first.tasks[SICK], second.tasks[SICK], first.tasks[0]]
        envs = TaskVectorEnv(FamilySet("both", (one, second)), 3, tasks=tasks)
        return [envs.reset(seed=0), *(envs.step(a) for a in actions(envs, 0, 5))]

    for value in (math.nan, 1e300):
        seen, expected = played(sick(first, "reward", value, 0.05)), played(first)
        assert finite(seen)
        assert seen[3][4]["final_info"]["physics_diverged"].tolist() == [True, False, False]
        for ours, theirs in zip(seen[1:], expected[1:], strict=True):
            for mine, other in zip(ours[:4], theirs[:4], strict=True):
                np.testing.assert_array_equal(mine[1:], other[1:])


@pytest.mark.parametrize("value", [math.nan, -math.inf, 1e39])
@pytest.mark.parametrize("where", ["observe", "reward"])
def test_other_interfaces_pass_no_bad_numbers_on(where: str, value: float) -> None:
    bad = sick(mtenvs.get_family("Biped"), where, value, 0.03)
    env = mtenvs.dm_env(bad, task=SICK, seed=0)  # type: ignore[arg-type]
    env.reset()
    still = np.zeros(6, np.float32)
    env.step(still)
    step = env.step(still)
    assert (step.last(), step.reward, step.discount) == (True, 0.0, 0.0)
    assert finite(step.observation)
    envs = sb3.TaskVecEnv(TaskVectorEnv(bad, 2, tasks=[0, SICK]))
    envs.reset()
    envs.step(np.zeros((2, 6)))
    observations, rewards, dones, infos = envs.step(np.zeros((2, 6)))
    assert finite([observations, rewards, infos])
    assert (rewards[1], dones.tolist(), infos[1]["TimeLimit.truncated"]) == (0.0, [False, True], False)
    assert infos[1]["physics_diverged"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_codes_that_are_not_finite_are_refused(value: float) -> None:
    codes = np.zeros((2, 8))
    codes[1, 3] = value
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="codes must be finite numbers"):
        TaskVectorEnv("Biped", 2, tasks=[0, 1], codes=codes)


# ---- what is acted with


def interfaces() -> dict[str, tuple[Any, Callable[[Any], Any], tuple[int, ...]]]:
    """Everything that takes actions: itself, how it is stepped, and what shape it wants."""
    single, envs = gym.make("mt/Biped-v0", task=0), TaskVectorEnv("Biped", 2, tasks=[0, 1])
    adapter, vec = mtenvs.dm_env("Biped", task=0, seed=0), sb3.make("mt/Biped-v0", num_envs=2, seed=0)
    single.reset(seed=0)
    envs.reset(seed=0)
    adapter.reset()
    vec.reset()
    return {
        "single": (single, lambda a: single.step(a)[:2], (6,)),
        "vector": (envs, lambda a: envs.step(a)[:2], (2, 6)),
        "dm_env": (adapter, lambda a: [adapter.step(a).observation["body"]], (6,)),
        "sb3": (vec, lambda a: vec.step(a)[:2], (2, 6)),
    }


LARGE = {
    "1e30": lambda shape: np.full(shape, 1e30),
    "float32": lambda shape: np.full(shape, 3e38, np.float32),
    "1e300": lambda shape: np.full(shape, 1e300),
    "integers": lambda shape: np.full(shape, 7),
    "bytes": lambda shape: np.full(shape, 255, np.uint8),
    "bool": lambda shape: np.ones(shape, bool),
    "float16": lambda shape: np.full(shape, 6e4, np.float16),
    "long integers": lambda shape: np.full(shape, 10**30, object),
    "decimals": lambda shape: np.full(shape, decimal.Decimal("1.5"), object),
    "lists": lambda shape: np.full(shape, 2.0).tolist(),
    "tensors": lambda shape: torch.full(shape, 9.0),
}
WRONG = {
    "nan": (lambda shape: np.full(shape, math.nan), r"action\[0.*\] is nan; actions must be finite"),
    "inf": (lambda shape: np.full(shape, math.inf), r"action\[0.*\] is inf; actions must be finite"),
    "-inf": (lambda shape: np.full(shape, -math.inf), r"action\[0.*\] is -inf; actions must be finite"),
    "none": (lambda shape: np.full(shape, None), r"action\[0.*\] is nan; actions must be finite"),
    "texts": (lambda shape: np.full(shape, "0.5"), r"array of numbers of shape .*: .* dtype <U3"),
    "complex": (lambda shape: np.full(shape, 0.5 + 1j), r"array of numbers of shape .*: .* complex128"),
    "dates": (
        lambda shape: np.full(shape, np.datetime64("2020-01-01")),
        r"array of numbers of shape .*: .* datetime64",
    ),
    "objects": (
        lambda shape: np.full(shape, datetime.date(2020, 1, 1), object),
        r"action must be an array of numbers of shape",
    ),
    "shape": (lambda shape: np.zeros((*shape, 1)), r"action has shape .*, expected"),
    "nothing": (lambda shape: None, r"action has shape \(\), expected"),
}


@pytest.mark.parametrize("name", interfaces())
def test_actions_are_clipped_or_refused_by_every_interface(name: str) -> None:
    """What is refused changes nothing."""
    _, step, shape = interfaces()[name]
    _, twin, _ = interfaces()[name]
    for make, message in WRONG.values():
        with pytest.raises(ValueError, match=message):
            step(make(shape))
    for make in LARGE.values():
        assert_same(list(step(make(shape))), list(twin(np.ones(shape))))


def test_refused_numbers_are_told_from_refused_shapes() -> None:
    with pytest.raises(NotFiniteError):
        check_action([math.nan], (1,))
    with pytest.raises(ValueError, match="has shape") as caught:
        check_action([0.0, 0.0], (1,))
    assert not isinstance(caught.value, NotFiniteError)


# ---- what a learner holds

SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(8, 8))
RUNS, WIDTH = 3, 4
HIT = 1
"""The run that something is injected into; runs 0 and 2 are its neighbours."""


def _log_std(learner: PPO, value: float) -> None:
    learner._parameters.views()["log_std"][HIT] = value


def _moments(of: str, name: str) -> Callable[[PPO, float], None]:
    def inject(learner: PPO, value: float) -> None:
        moments = learner._observation_moments if of == "observations" else learner._reward_scale.moments
        getattr(moments, name)[HIT, 0] = value

    return inject


def _adam(name: str) -> Callable[[PPO, float], None]:
    return lambda learner, value: getattr(learner._adam, name)[HIT].view(-1)[:1].fill_(value)


INJECTED: dict[str, tuple[Callable[[PPO, float], Any], float]] = {
    "a weight, nan": (lambda learner, value: learner._parameters.flat[HIT, 3].fill_(value), math.nan),
    "a weight, inf": (lambda learner, value: learner._parameters.flat[HIT, 3].fill_(value), math.inf),
    # finite, but not what follows from it
    "all weights, 3e38": (lambda learner, value: learner._parameters.flat[HIT].fill_(value), 3e38),
    "log_std, nan": (_log_std, math.nan),
    "log_std, 1000": (_log_std, 1000.0),
    "first moment, nan": (_adam("first"), math.nan),
    "first moment, -inf": (_adam("first"), -math.inf),
    "second moment, nan": (_adam("second"), math.nan),
    # it would hold the weight for ever, and everything would look well
    "second moment, inf": (_adam("second"), math.inf),
    "clock, nan": (_adam("clock"), math.nan),
    "mean, nan": (_moments("observations", "mean"), math.nan),
    "variance, inf": (_moments("observations", "var"), math.inf),
    "count, nan": (_moments("observations", "count"), math.nan),
    "scale, nan": (_moments("returns", "var"), math.nan),
    "scale, inf": (_moments("returns", "var"), math.inf),
    "return, nan": (
        lambda learner, value: learner._reward_scale._discounted[HIT, 0].fill_(value),
        math.nan,
    ),
}


def cohort(name: str = "", where: str = "", value: float = math.nan) -> tuple[PPO, list[np.ndarray]]:
    """Three runs, trained on after something was injected, if it was: into the learner, or as its worlds'.

    Returns:
        The learner, and returns and lengths of an evaluation.
    """
    envs = TaskVectorEnv("Biped", RUNS * WIDTH, tasks=[0, 1] * (RUNS * WIDTH // 2), max_episode_steps=20)
    learner = PPO(envs, list(range(RUNS)), SMALL)
    learner.train(envs, 2 * WIDTH * SMALL.num_steps)
    if name:
        inject, number = INJECTED[name]
        with torch.no_grad():
            inject(learner, number)
        learner._set_scale()
    own, left = envs.step, [5]

    def step(given: np.ndarray) -> Any:
        observations, rewards, *rest = own(given)
        left[0] -= 1
        if where and left[0] == 0:
            (observations if where == "observation" else rewards)[HIT * WIDTH] = value
        return (observations, rewards, *rest)

    envs.step = step  # type: ignore[method-assign]
    learner.train(envs, 5 * WIDTH * SMALL.num_steps)
    played = learner.evaluate(
        TaskVectorEnv("Biped", 6, tasks=[0, 1] * RUNS, max_episode_steps=9), [3, 4] * RUNS
    )
    return learner, [played.returns.reshape(RUNS, -1), played.lengths.reshape(RUNS, -1)]


@pytest.fixture(scope="module")
def untouched() -> tuple[PPO, list[np.ndarray]]:
    return cohort()


def assert_neighbours_equal(learner: PPO, healthy: PPO) -> None:
    for run in (0, 2):
        assert torch.equal(learner._parameters.flat[run], healthy._parameters.flat[run])
        for name in ("first", "second", "clock"):
            assert torch.equal(getattr(learner._adam, name)[run], getattr(healthy._adam, name)[run])
        for moments in (lambda x: x._observation_moments, lambda x: x._reward_scale.moments):
            for name, values in moments(learner).tensors(run).items():
                assert torch.equal(values, moments(healthy).tensors(run)[name])
        states = [x._noise_generators[run].get_state() for x in (learner, healthy)]
        assert torch.equal(*states)


@pytest.mark.parametrize("name", INJECTED)
def test_what_is_injected_into_a_run_costs_it_alone(
    untouched: tuple[PPO, list[np.ndarray]], name: str
) -> None:
    learner, played = cohort(name)
    assert learner.diverged().tolist() == [False, True, False]
    assert_neighbours_equal(learner, untouched[0])
    for ours, theirs in zip(played, untouched[1], strict=True):
        np.testing.assert_array_equal(ours[[0, 2]], theirs[[0, 2]])
        assert np.isfinite(ours).all()


@pytest.mark.parametrize("where", ["observation", "reward"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_worlds_that_give_bad_numbers_cost_their_run_alone(
    untouched: tuple[PPO, list[np.ndarray]], where: str, value: float
) -> None:
    """Ours do not, but a learner need not trust them."""
    learner, played = cohort(where=where, value=value)
    assert learner.diverged().tolist() == [False, True, False]
    assert_neighbours_equal(learner, untouched[0])
    for ours, theirs in zip(played, untouched[1], strict=True):
        np.testing.assert_array_equal(ours[[0, 2]], theirs[[0, 2]])


def test_a_family_that_gives_bad_numbers_stops_no_run(tmp_path: Path) -> None:
    """The episodes of one run's world end early and again; it goes on learning, as its neighbours do."""
    family = mtenvs.get_family("Biped")

    def train(one: mtenvs.Family) -> PPO:
        tasks = [0, 2, 3, 4, 0, SICK, 3, 4, 0, 2, 3, 4]
        envs = TaskVectorEnv(one, len(tasks), tasks=tasks)
        learner = PPO(envs, list(range(RUNS)), SMALL)
        learner.train(envs, 5 * WIDTH * SMALL.num_steps)
        return learner

    healthy = train(family)
    for where, value, since in (("observe", math.nan, -1.0), ("reward", math.inf, 0.05)):
        learner = train(sick(family, where, value, since))
        assert not learner.diverged().any()
        assert_neighbours_equal(learner, healthy)
        assert torch.isfinite(learner._parameters.flat).all()
        assert not torch.equal(learner._parameters.flat[HIT], healthy._parameters.flat[HIT])


@pytest.mark.parametrize("name", INJECTED)
def test_a_state_with_bad_numbers_is_gone_on_from(tmp_path: Path, name: str) -> None:
    def made() -> tuple[TaskVectorEnv, PPO]:
        envs = TaskVectorEnv("Biped", 6, tasks=[0, 1] * RUNS)
        return envs, PPO(envs, list(range(RUNS)), SMALL)

    steps = 2 * SMALL.num_steps
    envs, learner = made()
    learner.train(envs, steps)
    inject, number = INJECTED[name]
    with torch.no_grad():
        inject(learner, number)
    learner._set_scale()
    save_state(tmp_path / "state", learner.get_state(), {})
    learner.train(envs, 3 * steps)
    others, resumed = made()
    resumed.set_state(load_state(tmp_path / "state")[0], others)
    resumed.train(others, 3 * steps)
    assert resumed.diverged().tolist() == learner.diverged().tolist() == [False, True, False]
    assert_neighbours_equal(resumed, learner)


# ---- plans


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan that nothing happens to."""
    directory = planned(tmp_path_factory.mktemp("whole") / "plan", seeds=1)
    run_plan(directory)
    return directory


def injecting(monkeypatch: pytest.MonkeyPatch, victims: list[int]) -> None:
    """From their third rollout on, these runs of the cohort of two have weights that are not finite."""
    own = PPO._update

    def update(self: PPO, *batch: torch.Tensor) -> None:
        own(self, *batch)
        a_rollout = self.config.num_minibatches * self.config.update_epochs
        if self.num_runs == 2 and self.updates == 3 * a_rollout:
            with torch.no_grad():
                self._parameters.flat[victims] = math.nan

    monkeypatch.setattr(PPO, "_update", update)


@pytest.mark.parametrize("victims", [[1], [0, 1]])
def test_a_plan_whose_runs_diverge_keeps_the_rows_of_the_others(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victims: list[int]
) -> None:
    """It is killed as soon as that has happened, and goes on from the state with bad numbers."""
    directory = tmp_path / "plan"
    directory.mkdir()
    shutil.copy(whole / "plan.json", directory)
    with monkeypatch.context() as patch:
        injecting(patch, victims)
        # one run is pretrained for four rollouts, then two go on for three
        assert killed_after(directory, 4 + 3, save_every=0.0)
    run_plan(directory, save_every=0.0)
    learned = [run["id"] for run in load_plan(directory)["runs"] if run["phase"] == "learn"]
    lost = {learned[i] for i in victims}
    status = Store(directory).status()
    assert {i for i, s in status.items() if s == "diverged"} == lost
    assert {s for i, s in status.items() if i not in lost} == {"finished"}
    ours, theirs = rows(directory), rows(whole)
    for run_id, text in theirs.items():
        if run_id not in lost:
            assert ours[run_id] == text
            continue
        seen = [json.loads(line) for line in ours[run_id].splitlines()]
        expected = [json.loads(line) for line in text.splitlines()]
        assert [row["checkpoint"] for row in seen] == [row["checkpoint"] for row in expected]
        broken = [row["diverged"] for row in seen]
        assert broken == sorted(broken)
        assert 0 < sum(broken) < len(broken)
        for row, other in zip(seen, expected, strict=True):
            if row["diverged"]:
                assert {row[k] for k in ("return_mean", "return_std", "length_mean", "success")} == {None}
            else:
                assert row == other
        done = json.loads((directory / "runs" / run_id / "done.json").read_text())
        assert done["status"] == "diverged"
        assert done["interruptions"] == 1


# ---- diverging bodies


def test_no_body_at_the_extremes_lets_bad_numbers_out() -> None:
    """The soak of ``make soak``, small."""
    found = soak_physics.measure(100, most_steps=50)
    assert set(found["families"]) == {*mtenvs.families(), "AllFamilies"}
    for seen in found["families"].values():
        assert seen["faults"] == {}
        assert seen["tasks"] == 100
        assert 0.98 * 5_000 <= seen["control_steps"] <= 5_000
        assert seen["diverged"] <= 2
        assert 1.0 < seen["largest_observation"] < 1e4


def test_the_soak_notices_what_it_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    family = mtenvs.get_family("Biped")

    def observe(state: Any) -> Any:
        body = family.observe(state)
        body[state.time > 0.05] = math.nan
        return body

    broken = dataclasses.replace(family, observe=observe)
    with monkeypatch.context() as patch:
        patch.setitem(registry._families(), "Biped", broken)
        seen = soak_physics.measure(8, names=["Biped"], most_steps=9)["families"]["Biped"]
    assert seen["faults"] == {}
    assert (seen["diverged_tasks"], len(seen["examples"])) == (8, 8)
    assert seen["diverged"] == sum(seen["by_kind"].values()) == sum(seen["by_policy"].values()) >= 16
    assert set(seen["by_kind"]) == set(soak_physics.KINDS)
    own = TaskVectorEnv.step

    def leaking(self: TaskVectorEnv, given: np.ndarray) -> Any:
        observations, rewards, *rest = own(self, given)
        observations[0, 0], rewards[1] = math.nan, math.inf
        Path("MUJOCO_LOG.TXT").write_text("unstable")
        np.log(np.zeros(1))
        return (observations, rewards, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(TaskVectorEnv, "step", leaking)
        faults = soak_physics.measure(4, names=["Octopus"], most_steps=3)["families"]["Octopus"]["faults"]
    assert faults["an observation that is not finite"] == faults["a reward that is not finite"] == 3
    assert faults["a file MUJOCO_LOG.TXT"] == 1
    assert faults["RuntimeWarning: divide by zero encountered in log"] == 3
