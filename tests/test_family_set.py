"""Sets of families: worlds of several families in one environment, told apart by a code."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers import actions, assert_same, backend_of, present_entries, rollout

import mtenvs
from baselines.ppo import PPO, PPOConfig
from mtenvs.conditioning import CONDITIONINGS, Encoding
from mtenvs.env import TaskEnv
from mtenvs.registry import as_task, get_families
from mtenvs.spec import ALL_FAMILIES, FamilySet
from mtenvs.vector_env import TaskVectorEnv

ID = f"mt/{ALL_FAMILIES}-v0"
FAMILIES = [mtenvs.get_family(name) for name in mtenvs.families()]
EVERYTHING = get_families(ALL_FAMILIES)
# one of each family and one more, in no order, one of them twice and two of them sampled
MIXED = [
    *(f"{family.name}/{family.tasks[-1].name}" for family in FAMILIES),
    *(f"{family.name}/1" for family in reversed(FAMILIES)),
    "Biped/long-shins",
    "Biped/long-shins",
    mtenvs.sample_task("Octopus", 3),
    mtenvs.sample_task("BipedSkills", 4).to_dict(),
]
MODES = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]


def resolved(tasks: list[Any]) -> list[mtenvs.Task]:
    return [as_task(EVERYTHING, task) for task in tasks]


# ---- what a set is


def test_everything_is_a_set_of_all_families() -> None:
    assert isinstance(EVERYTHING, FamilySet)
    assert [family.name for family in EVERYTHING.families] == list(mtenvs.families())
    assert EVERYTHING.id == ID
    assert ID in gym.registry
    assert EVERYTHING.tasks == tuple(task for family in FAMILIES for task in family.tasks)
    assert mtenvs.tasks(ALL_FAMILIES) == EVERYTHING.tasks
    assert EVERYTHING.episode_steps == max(family.episode_steps for family in FAMILIES)
    for family in FAMILIES:
        assert set(family.reward_terms) <= set(EVERYTHING.reward_terms)
        assert all(EVERYTHING.of(task) is family for task in family.tasks)


def test_some_families_make_a_set_too() -> None:
    some = get_families(["Octopus", "Biped"])
    assert [family.name for family in some.families] == ["Octopus", "Biped"]
    with pytest.raises(ValueError, match=r"'DMWalker', which is not in .*; it has Octopus, Biped"):
        some.of(mtenvs.tasks("DMWalker")[0])
    for env in (
        gym.make(ID, family=["Octopus", "Biped"], task="Biped/0"),
        gym.make_vec(ID, num_envs=2, family=["Octopus", "Biped"], tasks=["Biped/0", "Octopus/0"]),
    ):
        env.reset(seed=0)
        assert env.unwrapped.observation_slices == Encoding(some).slices


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ([], "a set of families needs different names, at least one"),
        (["Biped", "Biped"], "a set of families needs different names"),
        (["Biped", "Bipde"], r"unknown family 'Bipde' \(did you mean 'Biped'"),
    ],
)
def test_what_makes_no_set_is_named(families: list[str], message: str) -> None:
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make(ID, family=families)


@pytest.mark.parametrize(
    ("made_as", "families", "right"),
    [
        ("mt/Biped-v0", "Octopus", "mt/Octopus-v0"),
        ("mt/Biped-v0", ["Biped", "Octopus"], ID),
        ("mt/Biped-v0", ALL_FAMILIES, ID),
        (ID, "Biped", "mt/Biped-v0"),
    ],
)
def test_an_id_does_not_make_what_has_another(made_as: str, families: Any, right: str) -> None:
    """It would have the time limit, and in records the name, of what it is not."""
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=f"'{made_as}' cannot make .*, whose id is '{right}'"):
            make(made_as, family=families)


# ---- tasks of a set


def test_a_task_of_a_set_resolves_from_every_form() -> None:
    for number, task in enumerate(EVERYTHING.tasks):
        forms = [
            number,
            np.int64(number),
            f"{task.family}/{task.name}",
            f"{task.family}/{task.number}",
            str(number),
            task,
            task.to_dict(),
        ]
        assert [as_task(EVERYTHING, form) for form in forms] == [task] * len(forms)
    own = {"family": "Octopus", "parameters": {"links": 4}}
    assert as_task(EVERYTHING, own).parameters["links"] == 4.0
    sampled = mtenvs.sample_task("DMWalker", 0)
    assert as_task(EVERYTHING, sampled) == sampled


def test_a_sets_tasks_are_those_of_its_own_families() -> None:
    """Which need not be the registered ones of these names."""
    biped = mtenvs.get_family("Biped")
    grown = dataclasses.replace(biped, published={**biped.published, "stilts": {"shin_length": 0.75}})
    own = FamilySet("grown", (grown, mtenvs.get_family("Octopus")))
    new = grown.tasks[-1]
    unnumbered = {"family": "Biped", "parameters": new.parameters}
    for form in ("Biped/stilts", f"Biped/{new.number}", new.number, new, new.to_dict()):
        assert as_task(own, form) == new
    assert as_task(own, unnumbered).parameters == new.parameters
    env = TaskEnv(own, task="Biped/stilts")  # type: ignore[arg-type]
    assert env.reset(seed=0)[1]["task"] == new.number


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("Biped", ValueError, r"is written FAMILY/TASK, for example 'Biped/nominal'; got 'Biped'"),
        ("Biped/", ValueError, "is written FAMILY/TASK"),
        ("nominal", ValueError, r"is written FAMILY/TASK.*the families are Biped, "),
        ("Bipde/0", ValueError, "is written FAMILY/TASK.*got 'Bipde/0'"),
        ("Biped/nobody", ValueError, "unknown task 'nobody'.*valid tasks of 'Biped'"),
        ("Biped/99", ValueError, "unknown task number 99; valid tasks of 'Biped'"),
        (-1, ValueError, r"unknown task number -1; 'AllFamilies' has 0 to \d+, through Biped, "),
        (999, ValueError, rf"unknown task number 999; 'AllFamilies' has 0 to {len(EVERYTHING.tasks) - 1}"),
        ({"parameters": {}}, ValueError, "a task of several families needs its 'family', one of Biped"),
        ({"family": "Bipde", "parameters": {}}, ValueError, "needs its 'family'"),
        (
            {"family": "Biped", "parameters": {"torso_length": 99.0}},
            ValueError,
            "'torso_length' of 'Biped' is 99.0, outside its range",
        ),
        (
            {"family": "Octopus", "parameters": {"links": 2.5}},
            ValueError,
            "'links' of 'Octopus' must be a whole number, got 2.5",
        ),
        (mtenvs.Task("Nobody", "x", {}), ValueError, "belongs to family 'Nobody', which is not in"),
        (3.0, TypeError, "a task is a number, a name, a Task or its dictionary, got 3.0"),
        (True, TypeError, "a task is a number, a name, a Task or its dictionary, got True"),
    ],
)
def test_bad_tasks_are_named_and_change_nothing(task: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gym.make(ID, task=task)
    with pytest.raises(error, match=message):
        gym.make_vec(ID, num_envs=2, tasks=["Biped/0", task])
    env, many = gym.make(ID, task="Octopus/3"), gym.make_vec(ID, num_envs=2, tasks=["Octopus/3", 0])
    first = env.reset(seed=0)[0], many.reset(seed=0)[0]
    with pytest.raises(error, match=message):
        env.reset(seed=1, options={"task": task})
    for options in ({"task": task}, {"tasks": [0, task]}):
        with pytest.raises(error, match=message):
            many.reset(seed=1, options=options)
    np.testing.assert_array_equal(env.reset(seed=0)[0], first[0])
    np.testing.assert_array_equal(many.reset(seed=0)[0], first[1])


def test_an_empty_mixture_is_an_error_and_a_task_twice_is_not() -> None:
    with pytest.raises(ValueError, match="tasks is empty; give at least one"):
        gym.make_vec(ID, num_envs=2, tasks=[])
    with pytest.raises(ValueError, match="tasks is empty"):
        gym.make_vec(ID, num_envs=2).reset(options={"tasks": []})
    env = gym.make_vec(ID, num_envs=4, tasks=["Octopus/0", "Octopus/0"])
    observations, info = env.reset(seed=[5, 5, 5, 6])
    assert len(set(info["task"].tolist())) == 1
    np.testing.assert_array_equal(observations[0], observations[1])
    assert not np.array_equal(observations[2], observations[3])


# ---- codes and masks


def test_the_code_says_which_family_and_where_in_it() -> None:
    """One entry for every family, then the descriptor of each in turn; of all but one's own, zero."""
    encoding = Encoding(EVERYTHING)
    sizes = [len(family.parameters) for family in FAMILIES]
    assert encoding.slices.code.stop - encoding.slices.code.start == len(FAMILIES) + sum(sizes)
    for task in resolved(MIXED):
        code = encoding.code(task).tolist()
        which = [family.name for family in FAMILIES].index(task.family)
        expected = [0.0] * len(code)
        expected[which] = 1.0
        start = len(FAMILIES) + sum(sizes[:which])
        expected[start : start + sizes[which]] = FAMILIES[which].descriptor(task)
        assert code == pytest.approx(expected)
    codes = {tuple(encoding.code(task).tolist()) for task in EVERYTHING.tasks}
    assert len(codes) == len(EVERYTHING.tasks)


def test_one_hot_counts_through_all_families() -> None:
    encoding = Encoding(EVERYTHING, "one_hot")
    np.testing.assert_array_equal(
        [encoding.code(task) for task in EVERYTHING.tasks], np.eye(len(EVERYTHING.tasks), dtype=np.float32)
    )
    assert Encoding(EVERYTHING, "none").code(EVERYTHING.tasks[0]).shape == (0,)
    with pytest.raises(ValueError, match="'sampled-3' is not published, so it has no one-hot slot"):
        gym.make(ID, task=mtenvs.sample_task("Octopus", 3), conditioning="one_hot")
    env = gym.make(ID, task="Octopus/2", conditioning="one_hot")
    observation, info = env.reset(seed=0)
    number = EVERYTHING.tasks.index(mtenvs.tasks("Octopus")[2])
    assert info["task"] == number
    code = observation[env.unwrapped.observation_slices.code]
    assert code.tolist() == [float(i == number) for i in range(len(code))]


@pytest.mark.parametrize("layout", [None, *mtenvs.get_family("Octopus").layouts])
def test_the_mask_says_which_entries_a_world_has(layout: str | None) -> None:
    encoding = Encoding(EVERYTHING, layout=layout)
    assert len(set(encoding.observation_names)) == len(encoding.observation_names)
    assert set(encoding.observation_names) == {n for f in FAMILIES for n in f.observation_names}
    assert set(encoding.action_names) == {n for f in FAMILIES for n in f.action_names}
    for task in resolved(MIXED):
        mask = encoding.mask(task)
        observed, acting = present_entries(EVERYTHING, task, layout)
        for names, entries, own in (
            (encoding.observation_names, encoding.observation_mask, observed),
            (encoding.action_names, encoding.action_mask, acting),
        ):
            for name, entry in zip(names, entries, strict=True):
                assert (name in own) == (entry == -1 or mask[entry] == 1.0), (task.name, name)


def test_unknown_layouts_are_named() -> None:
    with pytest.raises(ValueError, match="unknown layout 'spiral' of 'AllFamilies'; valid: "):
        gym.make(ID, layout="spiral")


# ---- the same worlds as the families' own


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_worlds_equal_their_familys_own_environment(mode: AutoresetMode, conditioning: str) -> None:
    """Entries by name, motors by name, rewards, ends, info; over several episodes; bit for bit."""
    tasks = resolved([t for t in MIXED if conditioning != "one_hot" or isinstance(t, str)])
    steps, limit = 45, 20
    env = gym.make_vec(
        ID,
        num_envs=len(tasks),
        tasks=tasks,
        conditioning=conditioning,
        autoreset_mode=mode,
        max_episode_steps=limit,
    )
    encoding, slices = env.unwrapped.encoding, env.unwrapped.observation_slices
    chosen = actions(env, 0, steps)
    seen = [env.reset(seed=0), *(env.step(a) for a in chosen)]
    terms = {f"reward_{term}" for term in EVERYTHING.reward_terms}
    for world, task in enumerate(tasks):
        family = mtenvs.get_family(task.family)
        own = gym.make_vec(
            family.id,
            num_envs=1,
            tasks=[task],
            conditioning="none",
            autoreset_mode=mode,
            max_episode_steps=limit,
        )
        motors = [encoding.action_names.index(name) for name in family.action_names]
        places = [encoding.observation_names.index(name) for name in family.observation_names]
        present, _ = present_entries(EVERYTHING, task)
        absent = [name not in present for name in encoding.observation_names]
        expected = [own.reset(seed=world), *(own.step(a[[world]][:, motors]) for a in chosen)]
        ends = 0
        for ours, theirs in zip(seen, expected, strict=True):
            pairs = [(ours[0][world], theirs[0][0])]
            if "final_obs" in theirs[-1]:
                pairs.append((ours[-1]["final_obs"][world], theirs[-1]["final_obs"][0]))
                ends += 1
            for row, body in pairs:
                np.testing.assert_array_equal(row[places], body[: len(places)])
                assert not row[slices.body][absent].any()
                np.testing.assert_array_equal(row[slices.mask], encoding.mask(task))
                np.testing.assert_array_equal(row[slices.code], encoding.code(task))
            assert ours[-1]["task"][world] == encoding.number(task)
            if len(ours) == 2:
                continue
            assert [part[world] for part in ours[1:4]] == [part[0] for part in theirs[1:4]]
            infos = [(ours[-1], theirs[-1])]
            if "final_info" in theirs[-1]:
                infos.append((ours[-1]["final_info"], theirs[-1]["final_info"]))
            for mine, other in infos:
                for key in terms | {"success", "physics_diverged"}:
                    has = key in other and other[f"_{key}"][0]
                    assert mine[f"_{key}"][world] == has, f"{key} of {task.family}"
                    assert mine[key][world] == (other[key][0] if key in other else 0)
        assert ends == (
            0 if mode == AutoresetMode.NEXT_STEP else sum(s[2][world] | s[3][world] for s in seen[1:])
        )


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_native_equals_gymnasiums_own_vector(mode: AutoresetMode) -> None:
    """Whole infos with their masks: a world has no reward terms but its family's."""
    native = gym.make_vec(ID, num_envs=len(MIXED), tasks=MIXED, autoreset_mode=mode, max_episode_steps=14)
    sync = SyncVectorEnv(
        [lambda t=t: gym.make(ID, task=t, max_episode_steps=14) for t in MIXED], autoreset_mode=mode
    )
    assert native.observation_space == sync.observation_space
    assert native.action_space == sync.action_space
    assert_same(rollout(native, 40), rollout(sync, 40))


def test_every_family_keeps_its_own_time_limit() -> None:
    tasks = [f"{family.name}/0" for family in FAMILIES]
    env = gym.make_vec(ID, num_envs=len(tasks), tasks=tasks).unwrapped
    limits = [family.episode_steps for family in FAMILIES]
    assert len(set(limits)) > 1
    assert env.episode_limits.tolist() == limits
    assert env.max_episode_steps == max(limits)
    env.reset(seed=0, options={"elapsed_steps": np.array(limits) - 3})
    still = np.zeros(env.action_space.shape)
    assert [env.step(still)[3].tolist() for _ in range(3)] == [[False] * len(tasks)] * 2 + [
        [True] * len(tasks)
    ]
    singles = [gym.make(ID, task=task) for task in tasks]
    for single, limit in zip(singles, limits, strict=True):
        single.reset(seed=0)
        single.unwrapped._elapsed = limit - 2
        ends = [single.step(np.zeros(single.action_space.shape))[2:4] for _ in range(2)]
        assert ends == [(False, False), (False, True)]


def test_a_whole_episode_of_a_short_family_ends_in_time() -> None:
    """Without any shortcut: 150 steps of an arm beside walkers that go on."""
    env = gym.make_vec(ID, num_envs=2, tasks=["Octopus/0", "DMWalker/0"])
    env.reset(seed=0)
    single = gym.make(ID, task="Octopus/0")
    single.reset(seed=0)
    still = np.zeros(single.action_space.shape)
    limit = mtenvs.get_family("Octopus").episode_steps
    for step in range(1, limit + 1):
        truncations = env.step(np.stack([still, still]))[3]
        assert truncations.tolist() == [step == limit, False]
        assert single.step(still)[3] == (step == limit)


@pytest.mark.parametrize("limit", [100, 400])
@pytest.mark.parametrize("families", [None, ["Octopus"]], ids=["all", "a set of one"])
def test_a_given_limit_is_that_of_both_kinds(limit: int, families: list[str] | None) -> None:
    """``max_episode_steps`` means the same in one and in many; no episode outlasts its family's own."""
    own = mtenvs.get_family("Octopus").episode_steps
    assert 100 < own < 400
    options = {"max_episode_steps": limit, **({"family": families} if families else {})}
    env = gym.make_vec(ID, num_envs=1, tasks=["Octopus/0"], **options)
    single = gym.make(ID, task="Octopus/0", **options)
    still = np.zeros(single.action_space.shape)
    env.reset(seed=0)
    single.reset(seed=0)
    ends = [], []
    for step in range(1, limit + 1):
        ends[0].extend([step] * int(env.step(still[None])[3][0]))
        ends[1].extend([step] * single.step(still)[3])
        if any(ends):
            break
    assert ends[0] == ends[1] == [min(limit, own)]


def test_elapsed_steps_beyond_a_familys_own_limit_are_refused() -> None:
    env = gym.make_vec(ID, num_envs=2, tasks=["Octopus/0", "Biped/0"])
    own = mtenvs.get_family("Octopus").episode_steps
    env.reset(seed=0, options={"elapsed_steps": np.array([own - 1, own])})
    with pytest.raises(ValueError, match="below every world's own limit; got"):
        env.reset(seed=0, options={"elapsed_steps": np.array([own, 0])})


# ---- one environment


@pytest.mark.parametrize("name", mtenvs.families())
def test_one_environment_of_a_set(name: str) -> None:
    """``gym.make("mt/AllFamilies-v0", task="Biped/3")`` is Biped's own, in the set's layout."""
    family = mtenvs.get_family(name)
    for number in (0, len(family.tasks) - 1):
        env, own = gym.make(ID, task=f"{name}/{number}"), gym.make(family.id, task=number)
        encoding = env.unwrapped.encoding
        places = [encoding.observation_names.index(n) for n in family.observation_names]
        motors = [encoding.action_names.index(n) for n in family.action_names]
        (observation, info), (body, _) = env.reset(seed=3), own.reset(seed=3)
        assert EVERYTHING.tasks[info["task"]] == family.tasks[number]
        rng = np.random.default_rng(0)
        for _ in range(20):
            np.testing.assert_array_equal(observation[places], body[: len(places)])
            action = rng.uniform(-1, 1, env.action_space.shape)
            observation, *rest, info = env.step(action)
            body, *theirs, own_info = own.step(action[motors])
            assert rest == theirs
            assert {k: v for k, v in info.items() if k != "task"} == {
                k: v for k, v in own_info.items() if k != "task"
            }
            assert env.observation_space.contains(observation)


def test_checker_of_gymnasium() -> None:
    with pytest.warns(UserWarning, match="A Box observation space"):
        check_env(gym.make(ID).unwrapped, skip_render_check=True)


def test_without_a_task_every_reset_draws_one_of_all() -> None:
    env = gym.make(ID)
    drawn = [env.reset(seed=0 if i == 0 else None)[1]["task"] for i in range(60)]
    assert {EVERYTHING.tasks[number].family for number in drawn} == set(mtenvs.families())
    assert drawn == [env.reset(seed=0 if i == 0 else None)[1]["task"] for i in range(60)]


def test_resets_choose_tasks_across_families() -> None:
    env = gym.make(ID)
    fixed = gym.make(ID, task="Octopus/1")
    env.reset(seed=0, options={"task": "Biped/0"})
    observation, info = env.reset(seed=5, options={"task": "Octopus/1"})
    np.testing.assert_array_equal(observation, fixed.reset(seed=5)[0])
    assert EVERYTHING.tasks[info["task"]].name == "three-links"
    assert env.reset()[1]["task"] == info["task"]  # for good

    many = gym.make_vec(ID, num_envs=3, tasks=["Biped/0"])
    many.reset(seed=0)
    many.step(many.action_space.sample())
    for options, tasks in (
        ({"tasks": ["Octopus/0", 9, "DMWalker/hop"]}, ["Octopus/0", 9, "DMWalker/hop"]),
        ({"task": "BipedSkills/jump"}, ["BipedSkills/jump"] * 3),
    ):
        first = many.reset(seed=0, options=options)
        fresh = gym.make_vec(ID, num_envs=3, tasks=tasks)
        assert_same(first, fresh.reset(seed=0))
        for action in actions(many, 0, 10):
            assert_same(many.step(action), fresh.step(action))
        assert many.unwrapped.episode_limits.tolist() == fresh.unwrapped.episode_limits.tolist()


def test_without_tasks_all_published_ones_are_dealt() -> None:
    n = len(EVERYTHING.tasks)
    env = gym.make_vec(ID, num_envs=n + 2)
    assert env.reset(seed=0)[1]["task"].tolist() == [*range(n), 0, 1]
    assert {task.family for task in env.unwrapped.tasks} == set(mtenvs.families())


def test_gymnasiums_vectorization_modes() -> None:
    native = gym.make_vec(ID, num_envs=2, tasks=["Octopus/3"], autoreset_mode="NextStep")
    sync = gym.make_vec(ID, num_envs=2, vectorization_mode="sync", task="Octopus/3")
    assert_same(rollout(native, 20), rollout(sync, 20))


# ---- copies, specs, divergence


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike(mode: AutoresetMode, duplicate: Any) -> None:
    env = gym.make_vec(ID, num_envs=len(MIXED), tasks=MIXED, autoreset_mode=mode, max_episode_steps=12)
    env.reset(seed=0)
    for action in actions(env, 0, 7):
        env.step(action)
    twin = duplicate(env)
    for action in actions(env, 1, 20):
        assert_same(env.step(action), twin.step(action))


@pytest.mark.parametrize("name", mtenvs.families())
def test_copies_of_one_environment_go_on_alike(name: str) -> None:
    env = gym.make(ID, task=f"{name}/1")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(5):
        env.step(rng.uniform(-1, 1, env.action_space.shape))
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        other = copy.deepcopy(env)
        for _ in range(10):
            action = rng.uniform(-1, 1, env.action_space.shape)
            (a, *rest), (b, *same) = other.step(action), twin.step(action)
            np.testing.assert_array_equal(a, b)
            assert rest == same


def test_spec_round_trips_through_json() -> None:
    one = gym.make(ID, task=mtenvs.sample_task("Octopus", 7), conditioning="none")
    again = gym.make(EnvSpec.from_json(one.spec.to_json()))
    assert again.unwrapped.task == one.unwrapped.task
    np.testing.assert_array_equal(one.reset(seed=0)[0], again.reset(seed=0)[0])
    some = gym.make(ID, family=["Octopus", "Biped"], task="Biped/3")
    again = gym.make(EnvSpec.from_json(some.spec.to_json()))
    assert [f.name for f in again.unwrapped.family.families] == ["Octopus", "Biped"]
    many = gym.make_vec(ID, num_envs=len(MIXED), tasks=MIXED)
    again = gym.make_vec(EnvSpec.from_json(many.spec.to_json()))
    assert_same(rollout(many, 5), rollout(again, 5))


def test_a_world_that_diverges_leaves_other_families_alone() -> None:
    envs = [gym.make_vec(ID, num_envs=3, tasks=["Biped/0", "Octopus/4", "DMWalker/1"]) for _ in range(2)]
    still = np.zeros(envs[0].action_space.shape)
    for env in envs:
        env.reset(seed=0)
        last = env.step(still)[0]
    backend, place = backend_of(envs[0], 1)
    backend.state.qvel[place] = np.nan
    observations, rewards, terminations, _, info = envs[0].step(still)
    expected = envs[1].step(still)
    assert terminations.tolist() == [False, True, False]
    assert info["final_info"]["physics_diverged"].tolist() == [False, True, False]
    np.testing.assert_array_equal(info["final_obs"][1], last[1])
    assert rewards[1] == 0.0
    for world in (0, 2):
        np.testing.assert_array_equal(observations[world], expected[0][world])
        assert rewards[world] == expected[1][world]
    assert np.isfinite(observations).all()


# ---- one network for everything

SMALL = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=2, hidden=(16, 16))


def weights(learner: PPO, run: int) -> torch.Tensor:
    return learner._parameters.flat[run].detach().clone()


def test_one_network_is_trained_on_everything(tmp_path: Any) -> None:
    n = len(EVERYTHING.tasks)
    worlds = TaskVectorEnv(ALL_FAMILIES, num_envs=2 * n, tasks=[*EVERYTHING.tasks, *EVERYTHING.tasks])
    learner = PPO(worlds, [1, 2], SMALL)
    before = weights(learner, 0)
    learner.train(worlds, 3 * 8 * n)
    assert not learner.diverged().any()
    assert torch.isfinite(weights(learner, 0)).all()
    assert not torch.equal(before, weights(learner, 0))
    # every entry of every body, and every motor, has been learned from
    assert (learner._observation_moments.count > 1).all()
    moved = learner._parameters.views()["log_std"][0, 0] != SMALL.initial_log_std
    assert moved.all()
    learner.save(0, tmp_path / "ck")
    some = ["Octopus/0", "Biped/0"]
    few = TaskVectorEnv(ALL_FAMILIES, num_envs=2, tasks=some, max_episode_steps=5)
    other = PPO(few, [9], SMALL)
    other.load(0, tmp_path / "ck")
    assert torch.equal(weights(other, 0), weights(learner, 0))
    played = other.evaluate(few, [0, 1])
    assert played.lengths.tolist() == [5, 5]
    with pytest.raises(ValueError, match=r"families = \['mt/Biped-v0'.*\['mt/Octopus-v0', 'mt/Biped-v0'\]"):
        PPO(TaskVectorEnv(["Octopus", "Biped"], num_envs=1), [1], SMALL).load(0, tmp_path / "ck")
    with pytest.raises(ValueError, match=r"family = 'mt/AllFamilies-v0'.*'mt/Biped-v0'"):
        PPO(TaskVectorEnv("Biped", num_envs=1), [1], SMALL).load(0, tmp_path / "ck")


def test_a_set_of_one_is_told_apart_from_another(tmp_path: Any) -> None:
    """Also where the shapes agree: what one family's network has learned is nothing to another family."""
    learner = PPO(TaskVectorEnv(["Biped"], num_envs=1), [1], SMALL)
    learner.save(0, tmp_path / "ck")
    with pytest.raises(ValueError, match=r"Biped-v0.*DMWalker-v0"):
        PPO(TaskVectorEnv(["DMWalker"], num_envs=1), [1], SMALL).load(0, tmp_path / "ck")


def test_a_run_does_not_depend_on_neighbours_of_other_families() -> None:
    def train(neighbour: list[str]) -> torch.Tensor:
        tasks = ["Biped/0", "Octopus/5", *neighbour]
        worlds = TaskVectorEnv(ALL_FAMILIES, num_envs=4, tasks=tasks, max_episode_steps=6)
        learner = PPO(worlds, [1, 2], SMALL)
        learner.train(worlds, 4 * 16)
        return weights(learner, 0)

    expected = train(["DMWalker/0", "BipedSkills/0"])
    assert torch.equal(expected, train(["Octopus/0", "Octopus/0"]))


def test_first_episodes_are_staggered_within_every_familys_own_limit() -> None:
    tasks = [f"{family.name}/0" for family in FAMILIES]
    worlds = TaskVectorEnv(ALL_FAMILIES, num_envs=8 * len(tasks), tasks=tasks)
    learner = PPO(worlds, [1], SMALL)
    learner._enter(worlds)
    elapsed = worlds._elapsed
    assert (elapsed < worlds.episode_limits).all()
    for first in range(len(tasks)):
        assert len(set(elapsed[first :: len(tasks)].tolist())) > 4


@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.name)
def test_gymnasiums_wrappers_go_around_it(mode: AutoresetMode) -> None:
    env = gym.make_vec(ID, num_envs=4, tasks=MIXED[:4], autoreset_mode=mode, max_episode_steps=6)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    episodes = 0
    for action in actions(env, 0, 20):
        info = env.step(action)[-1]
        if "episode" in info:
            episodes += int(info["_episode"].sum())
    assert episodes >= 8
