"""The study behind the bipeds' timestep, integrator, solver and contact pairs.

Physics is the floor of the cost on a CPU, so the setting should be the cheapest that stays close to
a 1 ms reference and trains to the same return. Three parts, each for settings that all control at 50 Hz:

speed      time inside ``Batch.step`` only, published tasks, random actions with autoreset
closeness  distance to the reference 0.2 s after the same states under the same actions, in units of
           what the noise on start states does to 0.2 s of the reference itself; and whether the
           physics holds at the corners of the parameters' ranges
training   deterministic return of PPO after a fixed number of steps, under the setting itself and,
           with the same policies, under the reference; on *sampled* tasks, as the published ones are
           kept for questions about transfer
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import mujoco
import numpy as np

import mtenvs
from baselines import ppo
from baselines.ppo import PPO, PPOConfig
from benchmarks.clock import Clock
from benchmarks.record import Store, interleave, spread
from mtenvs import registry
from mtenvs.backends.mujoco_batch import BatchBackend
from mtenvs.families import biped
from mtenvs.spec import Family, Task
from mtenvs.vector_env import TaskVectorEnv

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import seaborn as sns
from scipy import stats

CONTROL_STEP = 0.02  # s
TRAINED_TASKS = (100, 102)  # seeds of sampled tasks: weak on long light legs, and strong for its mass
SEEDS = (1, 2, 3, 4)
WORLDS = 64  # of a run
HORIZON = 10  # control steps that closeness looks ahead: 0.2 s


@dataclasses.dataclass(frozen=True)
class Physics:
    """One way to step the bipeds for 20 ms."""

    frame_skip: int
    """Physics steps in a control step of 20 ms."""
    integrator: str = "implicitfast"
    """``Euler``, ``implicitfast``, ``implicit`` or ``RK4``."""
    solver: str = "Newton"
    """``Newton`` or ``CG``."""
    iterations: int = 8
    """Of the solver, at most."""
    cone: str = "pyramidal"
    """Friction cone, ``pyramidal`` or ``elliptic``."""
    contacts: str = "feet"
    """``feet``: explicit pairs of feet and floor; ``all``: every limb with the floor, by contact bits."""

    @property
    def name(self) -> str:
        """For tables: what is not as in the family, after the steps."""
        differing = [f"{self.frame_skip} x {1000 * CONTROL_STEP / self.frame_skip:g} ms", self.integrator]
        if (self.solver, self.iterations) != ("Newton", 8):
            differing.append(f"{self.solver} {self.iterations}")
        if self.cone != "pyramidal":
            differing.append(self.cone)
        if self.contacts != "feet":
            differing.append("all limbs touch the floor")
        return ", ".join(differing)

    def family(self) -> Family:
        """The bipeds under this physics, all else equal."""

        def build(p: Mapping[str, float]) -> mujoco.MjSpec:
            spec = biped.FAMILY.build(p)
            option = spec.option
            option.timestep = CONTROL_STEP / self.frame_skip
            option.integrator = getattr(mujoco.mjtIntegrator, f"mjINT_{self.integrator.upper()}")
            option.solver = getattr(mujoco.mjtSolver, f"mjSOL_{self.solver.upper()}")
            option.iterations = self.iterations
            option.cone = getattr(mujoco.mjtCone, f"mjCONE_{self.cone.upper()}")
            if self.contacts == "all":
                for pair in list(spec.pairs):
                    spec.delete(pair)
                for geom in spec.geoms:  # limbs meet the floor, not each other
                    geom.friction[0] = biped.FRICTION
                    geom.contype, geom.conaffinity = (1, 0) if geom.name == "floor" else (0, 1)
            return spec

        return dataclasses.replace(biped.FAMILY, build=build, frame_skip=self.frame_skip)


PRESENT = Physics(biped.FRAME_SKIP, iterations=biped.SOLVER_ITERATIONS)
REFERENCE = Physics(20, iterations=100)
CANDIDATES = (
    Physics(1),
    Physics(2),
    Physics(4),
    Physics(8),
    Physics(2, iterations=2),
    Physics(2, iterations=4),
    Physics(2, iterations=100),
    Physics(2, solver="CG", iterations=8),
    Physics(2, cone="elliptic"),
    Physics(2, contacts="all"),
    Physics(2, integrator="implicit"),
    Physics(2, integrator="Euler"),
    Physics(4, integrator="Euler"),
    Physics(1, integrator="RK4"),
    Physics(2, integrator="RK4"),
)
TRAINED = (
    Physics(2),
    Physics(4),
    Physics(8),
    Physics(1),
    Physics(2, iterations=4),
    Physics(2, contacts="all"),
)


# ------------------------------------------------------------------------------------------- speed


def speed(store: Store) -> None:
    """Environment steps per second of ``Batch.step`` alone, of all candidates in turn."""
    worlds, steps, repeats = (16, 5, 1) if store.quick else (256, 100, 7)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (steps, worlds, len(biped.JOINTS))).astype(np.float32)

    def side(physics: Physics) -> Any:
        envs = TaskVectorEnv(physics.family(), worlds)
        clock = Clock.of(envs._groups[0].backend)
        # staggered, so that every round sees a mixture of standing, falling and starting anew
        envs.reset(seed=0, options={"elapsed_steps": rng.integers(envs.family.episode_steps, size=worlds)})

        def measure() -> float:
            clock.seconds = 0.0
            for action in actions:
                envs.step(action)
            return steps * worlds / clock.seconds

        return measure

    everything = list(dict.fromkeys((*CANDIDATES, PRESENT, REFERENCE)))
    speeds = interleave({p.name: side(p) for p in everything}, repeats)
    present = speeds[PRESENT.name]
    facts = {
        p.name: {
            "settings": dataclasses.asdict(p),
            "environment_steps_per_second": spread(speeds[p.name]),
            "physics_steps_per_second": spread([v * p.frame_skip for v in speeds[p.name]]),
            "relative_to_present": spread([a / b for a, b in zip(speeds[p.name], present, strict=True)]),
        }
        for p in everything
    }
    store.save("physics_study.speed", present=PRESENT.name, worlds=worlds, candidates=facts)
    summarise(store)


# --------------------------------------------------------------------------------------- closeness


class Worlds:
    """Worlds of given tasks under one physics, started wherever asked."""

    def __init__(self, physics: Physics, tasks: Sequence[Task]) -> None:
        family = physics.family()
        models = {t: registry.model(family, t) for t in dict.fromkeys(tasks)}
        constants = {t: family.constants(t.parameters) for t in models}
        self.backend = BatchBackend(
            [models[t] for t in tasks],
            {name: np.array([constants[t][name] for t in tasks]) for name in constants[tasks[0]]},
            (),
            family.frame_skip,
        )
        self.family, self.ids = family, np.arange(len(tasks))

    def start(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Starts all worlds from positions and velocities, without warm start."""
        self.backend.reset(self.ids, qpos, qvel)

    def start_noisy(self, rng: np.random.Generator) -> None:
        """Starts all worlds as an episode does."""
        draws = rng.random((len(self.ids), self.family.start_draws))
        self.start(*self.family.start(self.backend.home, draws))

    def play(self, actions: np.ndarray) -> dict[str, np.ndarray]:
        """Plays ``(steps, n, nu)`` and returns heights, angles and velocities, each ``(n, size)``."""
        for action in actions:
            self.backend.step(action)
        state = self.backend.state
        return {
            "hip_height": state.sensor("hip_position")[:, 2:].copy(),
            "joint_angles": state.qpos[:, 3:].copy(),
            "com_velocity": state.sensor("com_velocity")[:, ::2].copy(),
        }


def _distances(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Root mean square over the entries of every quantity, per world ``(n,)``."""
    return {name: np.sqrt(((a[name] - b[name]) ** 2).mean(axis=1)) for name in a}


def _summary(distances: Mapping[str, np.ndarray], scale: Mapping[str, float]) -> dict[str, Any]:
    quantities = {
        name: {
            "rms": float(np.sqrt((d**2).mean())),
            "median": float(np.median(d)),
            "p90": float(np.quantile(d, 0.9)),
        }
        for name, d in distances.items()
    }
    shares = {
        key: float(np.mean([q[key] / scale[name] for name, q in quantities.items()]))
        for key in ("rms", "median", "p90")
    }
    return {"quantities": quantities, "share_of_start_noise": shares}


def _spread_of_start_noise(tasks: Sequence[Task], rng: np.random.Generator) -> dict[str, float]:
    """Root mean square distance of two noisy starts after the horizon, same actions, reference physics."""
    worlds = Worlds(REFERENCE, tasks)
    actions = rng.uniform(-1.0, 1.0, (HORIZON, len(tasks), len(biped.JOINTS)))
    ends = []
    for _ in range(2):
        worlds.start_noisy(rng)
        ends.append(worlds.play(actions))
    return {name: float(np.sqrt((d**2).mean())) for name, d in _distances(*ends).items()}


def _flailing(tasks: Sequence[Task], rng: np.random.Generator) -> tuple[Any, ...]:
    """States on the way of random actions, not yet fallen, and random actions to come.

    Returns:
        Tasks (n), positions, velocities, each ``(n, size)``, and actions ``(horizon, n, nu)``.
    """
    worlds = Worlds(REFERENCE, tasks)
    worlds.start_noisy(rng)
    n, nu = len(tasks), len(biped.JOINTS)
    stops = rng.integers(0, 40, size=n)  # falls come after 0.6 s or so
    qpos, qvel = np.zeros_like(worlds.backend.home), np.zeros((n, 3 + nu))
    upright = np.ones(n, bool)
    for t in range(40):
        here = stops == t
        qpos[here], qvel[here] = worlds.backend.state.qpos[here], worlds.backend.state.qvel[here]
        upright[here] = ~worlds.family.terminated(worlds.backend.state)[here]
        worlds.backend.step(rng.uniform(-1.0, 1.0, (n, nu)))
    keep = np.flatnonzero(upright)
    return (
        [tasks[i] for i in keep],
        qpos[keep],
        qvel[keep],
        rng.uniform(-1.0, 1.0, (HORIZON, len(keep), nu)),
    )


def _walking(directory: Path, copies: int, rng: np.random.Generator) -> tuple[Any, ...] | None:
    """States and actions of the trained walkers, under the reference; as :func:`_flailing`."""
    layout = [(task, seed) for task in TRAINED_TASKS for seed in SEEDS]
    paths = [directory / f"{task}-{seed}" for task, seed in layout]
    if not all(p.is_dir() for p in paths):
        return None
    tasks = [registry.sample_task("Biped", task) for task, _ in layout for _ in range(copies)]
    envs = TaskVectorEnv(REFERENCE.family(), len(tasks), tasks)
    learner = PPO(envs, [seed for _, seed in layout])
    for run, path in enumerate(paths):
        learner.load(run, path)
    observations, _ = envs.reset(seed=7)
    state = envs._groups[0].backend.state
    # at a random phase of a gait that has settled
    stops = rng.integers(100, 150, size=len(tasks))
    qpos, qvel = np.zeros_like(state.qpos), np.zeros_like(state.qvel)
    actions, going = np.zeros((HORIZON, len(tasks), len(biped.JOINTS))), np.ones(len(tasks), bool)
    for t in range(150 + HORIZON):
        here = stops == t
        qpos[here], qvel[here] = state.qpos[here], state.qvel[here]
        action = learner.act(observations)
        ahead = np.flatnonzero((t >= stops) & (t < stops + HORIZON))
        actions[t - stops[ahead], ahead] = np.clip(action[ahead], -1.0, 1.0)
        observations, _, terminations, _, _ = envs.step(action)
        going &= ~terminations  # a world that fell has started anew: its actions fit nothing
    keep = np.flatnonzero(going)
    return [tasks[i] for i in keep], qpos[keep], qvel[keep], actions[:, keep]


def _corner_tasks(count: int) -> list[Task]:
    """Bodies with every parameter at an end of its range, where physics is most likely to break."""
    rng = np.random.default_rng(1)
    return [
        Task(
            "Biped",
            f"corner-{i}",
            {p.name: p.low if rng.random() < 0.5 else p.high for p in biped.PARAMETERS},
        )
        for i in range(count)
    ]


def _stability(physics: Physics, tasks: Sequence[Task], steps: int) -> dict[str, Any]:
    """How many episodes diverge under full torque that changes sign at random; falling ends one as ever."""
    worlds = TaskVectorEnv(physics.family(), len(tasks), tasks)
    worlds.reset(seed=0)
    rng = np.random.default_rng(2)
    episodes = diverged = 0
    for _ in range(steps):
        actions = rng.choice([-1.0, 1.0], (len(tasks), len(biped.JOINTS)))
        _, _, terminations, truncations, info = worlds.step(actions)
        if (terminations | truncations).any():
            episodes += int((terminations | truncations).sum())
            diverged += int(info["final_info"]["physics_diverged"].sum())
    return {"worlds": len(tasks), "steps": steps, "episodes": episodes, "diverged": diverged}


def closeness(store: Store) -> None:
    """Distance of every candidate to the reference after 0.2 s from the same states and actions."""
    copies = 4 if store.quick else 128
    rng = np.random.default_rng(0)
    published = [t for t in mtenvs.tasks("Biped") for _ in range(copies)]
    scale = _spread_of_start_noise(published, rng)
    sets = {"flailing": _flailing(published, rng)}
    walking = _walking(_checkpoints(store, _budget(store)), copies, rng)
    if walking is not None and walking[0]:
        sets["walking"] = walking
    corners = _corner_tasks(8 if store.quick else 256)
    # half the reference's step shows how far the reference itself is from the limit
    finer = Physics(40, iterations=100)
    facts: dict[str, Any] = {}
    for kind, (tasks, qpos, qvel, actions) in sets.items():

        def ends(
            physics: Physics, tasks: Any = tasks, qpos: Any = qpos, qvel: Any = qvel, actions: Any = actions
        ) -> dict[str, np.ndarray]:
            worlds = Worlds(physics, tasks)
            worlds.start(qpos, qvel)
            return worlds.play(actions)

        truth = ends(REFERENCE)
        for physics in (*CANDIDATES, finer):
            entry = facts.setdefault(physics.name, {"settings": dataclasses.asdict(physics)})
            entry[kind] = _summary(_distances(ends(physics), truth), scale)
            entry[kind]["states"] = len(tasks)
    for physics in (*CANDIDATES, REFERENCE):
        entry = facts.setdefault(physics.name, {"settings": dataclasses.asdict(physics)})
        entry["stability"] = _stability(physics, corners, 20 if store.quick else 500)
    store.save(
        "physics_study.closeness",
        reference=REFERENCE.name,
        horizon_seconds=HORIZON * CONTROL_STEP,
        spread_of_start_noise=scale,
        candidates=facts,
    )
    summarise(store)


# ---------------------------------------------------------------------------------------- training


def _checkpoints(store: Store, budget: int) -> Path:
    return Path("runs") / f"{store.out.name}-physics_study" / _fingerprint(budget)


def _budget(store: Store) -> int:
    return 4096 if store.quick else 400_000


def _fingerprint(budget: int) -> str:
    """Changes with whatever a finished training depends on, so that only stale ones are made again."""
    bodies = [mtenvs.mjcf("Biped", registry.sample_task("Biped", t)) for t in TRAINED_TASKS]
    functions = (biped.constants, biped.observe, biped.reward, biped.terminated, biped.start)
    parts = [*bodies, *map(inspect.getsource, functions), inspect.getsource(ppo), budget, SEEDS, WORLDS]
    return hashlib.sha256("".join(map(str, parts)).encode()).hexdigest()[:16]


def training(store: Store) -> None:
    """Trains PPO under the candidates that matter; goes on where an interrupted study was."""
    budget = _budget(store)
    every, episodes = (2048, 2) if store.quick else (50_000, 16)
    fingerprint = _fingerprint(budget)
    before = store.load("physics_study.training") or {}
    done = before.get("candidates", {}) if before.get("fingerprint") == fingerprint else {}
    for physics in TRAINED:
        if physics.name in done:
            continue
        done[physics.name] = _train(store, physics, budget, every, episodes)
        store.save(
            "physics_study.training",
            fingerprint=fingerprint,
            budget=budget,
            tasks=[registry.sample_task("Biped", t).to_dict() for t in TRAINED_TASKS],
            seeds=SEEDS,
            config=dataclasses.asdict(PPOConfig()),
            candidates=done,
        )
        summarise(store)


def _train(store: Store, physics: Physics, budget: int, every: int, episodes: int) -> dict[str, Any]:
    layout = [(task, seed) for task in TRAINED_TASKS for seed in SEEDS]

    def worlds(physics: Physics, copies: int) -> TaskVectorEnv:
        tasks = [registry.sample_task("Biped", task) for task, _ in layout for _ in range(copies)]
        return TaskVectorEnv(physics.family(), len(tasks), tasks)

    def evaluate(worlds: TaskVectorEnv) -> dict[str, list[list[float]]]:
        played = learner.evaluate(worlds, range(1000, 1000 + worlds.num_envs))

        def by_task(values: np.ndarray) -> list[list[float]]:
            return values.reshape(len(TRAINED_TASKS), len(SEEDS), -1).mean(axis=2).tolist()

        return {
            "returns": by_task(played.returns),
            "lengths": by_task(played.lengths),
            "success": by_task(played.success),
        }

    envs, own, reference = worlds(physics, WORLDS), worlds(physics, episodes), worlds(REFERENCE, episodes)
    learner = PPO(envs, [seed for _, seed in layout])
    curve, seconds = [], 0.0
    while learner.steps < budget:
        started = time.perf_counter()
        learner.train(envs, min(budget, learner.steps + every))
        seconds += time.perf_counter() - started
        curve.append({"steps": learner.steps, **evaluate(own)})
        print(
            f"{physics.name}: {learner.steps} steps, return by task "
            f"{np.mean(curve[-1]['returns'], axis=1).round(0)}, "
            f"{learner.num_runs * learner.steps / seconds:,.0f} steps/s",
            flush=True,
        )
    if physics == PRESENT:
        for run, (task, seed) in enumerate(layout):
            learner.save(run, _checkpoints(store, budget) / f"{task}-{seed}")
    return {
        "settings": dataclasses.asdict(physics),
        "curve": curve,
        "own_physics": evaluate(own),
        "reference_physics": evaluate(reference),
        "steps_per_second": learner.num_runs * learner.steps / seconds,
    }


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95% t-interval."""
    values = np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


# ----------------------------------------------------------------------------------------- summary


def summarise(store: Store) -> None:
    """Writes table and figure of the parts that are there."""
    parts = {
        part: (store.load(f"physics_study.{part}") or {}).get("candidates", {})
        for part in ("speed", "closeness", "training")
    }
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    lines = [
        "## Physics of the bipeds: the setting against its alternatives\n",
        f"Present setting: **{PRESENT.name}**; reference: {REFERENCE.name}; control at 50 Hz.\n",
        "- speed: time inside `Batch.step`, relative to the present setting",
        "- diverged: episodes that end in bad numbers, bodies at the corners of the parameters' ranges",
        "  under full torque that changes sign at random",
        "- distance: 0.2 s after the same states under the same actions, in units of what start noise does",
        "  to the reference in 0.2 s (1 = as much); median over states (and rms); from states",
        "  and actions at random, and from a trained walker's",
        "- return: PPO's deterministic return after training, mean over sampled tasks and 95% t-interval",
        "  over seeds; then of the same policies under the reference\n",
        "| physics | speed | diverged | distance at random | walking | return | under the reference |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        cells = [name]
        fast = parts["speed"].get(name)
        cells.append(f"{fast['relative_to_present']['median']:.2f}x" if fast else "")
        stable = parts["closeness"].get(name, {}).get("stability")
        cells.append(f"{stable['diverged']} of {stable['episodes']:,}" if stable else "")
        for kind in ("flailing", "walking"):
            close = parts["closeness"].get(name, {}).get(kind)
            share = close and close["share_of_start_noise"]
            cells.append(f"{share['median']:.3f} ({share['rms']:.2f})" if share else "")
        trained = parts["training"].get(name)
        for key in ("own_physics", "reference_physics"):
            mean, half = _interval(np.mean(trained[key]["returns"], axis=0)) if trained else (0.0, 0.0)
            cells.append(f"{mean:.0f} ± {half:.0f}" if trained else "")
        lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines) + "\n"
    if not store.quick:
        text += _decision(parts)
    if _draw(store, parts):
        text += "\n![speed, distance and return of the physics settings](physics_study.png)\n"
    (store.out / "physics_study.md").write_text(text.replace("## ", "# ", 1))
    store.save("physics_study", present=PRESENT.name, reference=REFERENCE.name, text=text)


def _decision(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Why the present setting, with the figures of the table; empty until all of them are there.

    The figures follow the measurements, the words do not: read them again when a part is measured anew.
    """
    longer, newton2, newton4, newton100, limbs, euler = others = (
        Physics(1),
        Physics(2, iterations=2),
        Physics(2, iterations=4),
        Physics(2, iterations=100),
        Physics(2, contacts="all"),
        Physics(2, integrator="Euler"),
    )
    settings = (PRESENT, *others)
    if not (
        all(p.name in parts["speed"] for p in settings)
        and all(parts["closeness"].get(p.name, {}).keys() >= {"flailing", "walking"} for p in settings)
        and all(p.name in parts["training"] for p in TRAINED)
    ):
        return ""

    def fast(physics: Physics) -> str:
        ratio = parts["speed"][physics.name]["relative_to_present"]
        return f"{ratio['median']:.2f}x [{ratio['min']:.2f}, {ratio['max']:.2f}]"

    def far(physics: Physics) -> str:
        kinds = (parts["closeness"][physics.name][kind] for kind in ("flailing", "walking"))
        return " and ".join(f"{kind['share_of_start_noise']['rms']:.2f}" for kind in kinds)

    def returns(physics: Physics, key: str) -> np.ndarray:
        return np.mean(parts["training"][physics.name][key]["returns"], axis=0)

    def moved(physics: Physics) -> str:
        own, under = returns(physics, "own_physics"), returns(physics, "reference_physics")
        change, half = _interval(under - own)  # the same policies: paired
        return f"from {own.mean():.0f} to {under.mean():.0f}, by {change:.0f} ± {half:.0f}"

    present = returns(PRESENT, "own_physics")
    differences = []
    for physics in TRAINED:
        if physics != PRESENT:
            own = returns(physics, "own_physics")
            low, high = stats.ttest_ind(own, present, equal_var=False).confidence_interval(0.95)
            differences.append((float(low), float(own.mean() - present.mean()), float(high), physics.name))
    low, middle, high, widest = max(differences, key=lambda d: d[2] - d[0])
    none = all(d[0] <= 0 <= d[2] for d in differences)
    return (
        f"\n**Decision: {PRESENT.name}, {PRESENT.solver} with at most {PRESENT.iterations} iterations, "
        "explicit pairs of feet and floor**: the cheapest setting whose distance stays within what start "
        f"noise does (rms, at random and walking: {far(PRESENT)}; by the median, {longer.name} would too: "
        "rms was chosen with this table in view) and whose policies keep their return under the "
        "1 ms reference "
        f"({moved(PRESENT)}: no loss detected). "
        f"Not {longer.name}, though faster ({fast(longer)}): its rms distance is {far(longer)}, and its "
        f"policies lose return under the reference, {moved(longer)} (95% t-interval of the paired change, "
        f"{len(SEEDS)} seeds). "
        "Small differences of speed mean nothing here: Newton 100 ends in the very distances of Newton "
        f"{PRESENT.iterations}, so it does the same work, and yet measures {fast(newton100)} (median and "
        f"range of the rounds); Euler ({fast(euler)}, the same distances too) and Newton 4 "
        f"({fast(newton4)}) differ from the present setting by no more, so neither is preferred; Newton 2 "
        f"({fast(newton2)}) is too far from the reference (rms {far(newton2)}). "
        f"Contacts of all limbs measure {fast(limbs)}, within the same noise, and their distance is to a "
        "reference with feet only, another model: the pairs are the smaller model, not a measured gain. "
        f"Of the {len(TRAINED)} settings trained, "
        + ("none differs detectably" if none else "not all agree")
        + f" in return under its own physics from the present one (95% Welch intervals; widest {widest}: "
        f"{middle:.0f} [{low:.0f}, {high:.0f}]), which with {len(SEEDS)} seeds is no difference detected, "
        "not equality.\n"
    )


def _draw(store: Store, parts: Mapping[str, Mapping[str, Any]]) -> bool:
    """One line per setting: speed, distance, return; ``False`` if there is nothing to draw yet."""
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    if not names:
        return False
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(
        1, 3, figsize=(13, 1.5 + 0.32 * len(names)), sharey=True, layout="constrained"
    )
    for y, name in enumerate(names):
        fast = parts["speed"].get(name)
        if fast:
            axes[0].scatter(fast["relative_to_present"]["median"], y, color="C0")
        for kind, shift, colour, marker in (("flailing", -0.12, "C0", "o"), ("walking", 0.12, "C2", "s")):
            close = parts["closeness"].get(name, {}).get(kind)
            if close:
                axes[1].scatter(
                    close["share_of_start_noise"]["median"], y + shift, color=colour, marker=marker
                )
        for key, shift, colour, marker in (
            ("own_physics", -0.15, "C0", "o"),
            ("reference_physics", 0.15, "C2", "s"),
        ):
            if name in parts["training"]:
                returns = np.mean(parts["training"][name][key]["returns"], axis=0)
                mean, half = _interval(returns)
                axes[2].errorbar(mean, y + shift, xerr=half, color=colour, marker=marker, capsize=3)
                axes[2].scatter(returns, np.full(len(returns), y + shift), s=8, color="0.3", zorder=3)
    labels = (
        ("speed, relative to the present setting", None),
        ("median distance to the reference\nafter 0.2 s, in start noise", ("at random", "walking")),
        ("deterministic return after training\n(dots: seeds)", ("own physics", "under the reference")),
    )
    for axis, (label, legend) in zip(axes, labels, strict=True):
        axis.set_xlabel(label)
        if legend:
            for text, colour, marker in zip(legend, ("C0", "C2"), ("o", "s"), strict=True):
                axis.scatter([], [], color=colour, marker=marker, label=text)
            axis.legend(loc="best", fontsize=8)
    axes[1].set(xscale="log", xlim=(0.01, 2.0))
    axes[0].set_yticks(range(len(names)), [f"{n} (present)" if n == PRESENT.name else n for n in names])
    axes[0].invert_yaxis()
    figure.savefig(store.out / "physics_study.png", dpi=150)
    plt.close(figure)
    return True
