"""The command line, ``mtenvs`` or ``python -m harness``; options are made from the dataclasses."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import operator
import os
import re
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import mtenvs
from baselines.registry import Policy, describe_learner, find_agent, load_policy, widened
from harness import verify
from harness.__main__ import INTERRUPTED
from harness.bookmark import SAVE_SECONDS
from harness.catalogue import differences, nearest, page, with_families_table
from harness.compare import compare, leaderboard
from harness.pack import pack
from harness.plan import (
    PLAN,
    PRESETS,
    UNUSED,
    PlanError,
    Preset,
    load_plan,
    make_joint_plan,
    make_matrix_plan,
    make_plan,
    summarise,
    write_plan,
)
from harness.rebuild import plans_below, rebuild
from harness.record import Recording, reading, recorded
from harness.reference import (
    ReferenceConfig,
    check_alike,
    make_reference,
    merge,
    origin,
    restamped,
    shortcomings,
    unmeasured,
    write_reference,
)
from harness.reference_scores import reference_path
from harness.replicate import compare_again, compare_fresh, fold_number, plan_again, plan_fresh, run_of
from harness.report import summary_table, write_report
from harness.report.agent import variant
from harness.report.words import plural
from harness.run import (
    SHARE,
    TrainingError,
    agent_to_run,
    check_device,
    check_executor,
    choose_backend,
    estimate_cost,
    pending_steps,
    run_command,
    run_plan,
    runs_that_fit,
)
from harness.show import Player, check_display, check_film, film, frames, sheet, summary, view
from harness.status import status_of
from harness.store import COMPLETE, Store
from harness.table import columns_page, export_table
from harness.workers import STOPS
from mtenvs.export import export
from mtenvs.registry import as_task, everything, get_families
from mtenvs.rendering import RenderingError
from mtenvs.spec import ALL_FAMILIES, MissingPackageError

# lines are cut by the terminal, not by us: tables and paths stay whole where there is none
console = Console(soft_wrap=True, emoji=False)
errors = Console(soft_wrap=True, emoji=False, stderr=True)
KILO = 1000
TELL_SECONDS = 60.0
"""How often a training says how far it is where no bar can be drawn."""


Executor = Literal["local", "ray"]
"""Of :data:`harness.run.EXECUTORS`."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where plans are trained."""

    device: str = "cpu"
    """Of the networks."""
    backend: str | None = None
    """What steps the worlds; ``None`` for what suits device and agent."""
    processes: int | None = None
    """At a time; ``None`` for one a core, and one on a GPU."""
    save_every: float = SAVE_SECONDS
    """Seconds after which a training is saved."""
    executor: Executor = "local"
    """Who trains."""
    address: str | None = None
    """Of a Ray cluster."""

    def __post_init__(self) -> None:
        check_executor(self.executor, self.address)
        check_device(self.device, self.executor)
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"processes must be positive, got {self.processes}")

    @property
    def at_a_time(self) -> int | None:
        """Cohorts trained at a time; ``None`` for as many as a cluster has room for."""
        if self.processes is not None or self.executor != "local":
            return self.processes
        return (os.cpu_count() or 1) if self.device == "cpu" else 1

    def run_command(self, directory: Path) -> str:
        """What to type to train what is left of a plan, as before."""
        own = (
            f" --processes {self.processes}" * (self.processes is not None),
            f" --save-every {self.save_every:g}" * (self.save_every != SAVE_SECONDS),
        )
        command = run_command(directory, self.device, self.backend, self.executor, self.address)
        return command + "".join(own)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the commands that plan have in common."""

    family: tyro.conf.Positional[str]
    """Name of the family, for example Biped."""
    out: Path | None = None
    """Directory of the experiment; runs/FAMILY-PRESET if left out."""
    preset: str = "standard"
    """Where the settings below start from: quick, standard or full; wide for a GPU."""
    settings: tyro.conf.OmitArgPrefixes[Preset] = dataclasses.field(default_factory=Preset)
    """What is done."""
    device: str = "cpu"
    """Where networks live: cpu, or cuda."""
    backend: str | None = None
    """What steps the worlds: batch, MuJoCo on the cores of the CPU, or warp, MuJoCo Warp on the device. If
    left out, warp on a GPU for agents that can, which are ours, else batch."""
    processes: int | None = None
    """Batches trained at a time, in processes of their own; one for each core if left out (on a GPU: one;
    with ray: as many as there is room for). Results do not depend on it."""
    save_every: float = SAVE_SECONDS
    """Seconds after which a training is saved, so that one that is killed goes on from there; 0 for after
    every rollout."""
    executor: Executor = "local"
    """Who trains: local, processes of this machine, or ray, a Ray cluster with a task for each batch."""
    address: str | None = None
    """Of the Ray cluster, HOST:PORT, or auto where this machine is one of its; if left out, this machine is
    made one for the time."""

    @property
    def place(self) -> Place:
        """Where it is trained."""
        return Place(
            self.device, self.backend, self.processes, self.save_every, self.executor, self.address
        )

    def write(self, kind: str) -> Path:
        """Makes and writes the plan, or finds the same one already there."""
        place = self.place
        family, settings = mtenvs.get_family(self.family).name, self.settings
        default = PRESETS[self.preset]
        if given := [name for name in UNUSED[kind] if getattr(settings, name) != getattr(default, name)]:
            uses = {name: " and ".join(k for k in UNUSED if name not in UNUSED[k]) for name in given}
            options = ", ".join(f"--{name.replace('_', '-')} (for {uses[name]})" for name in given)
            raise ValueError(f"an experiment of kind {kind} has no use for {options}; leave that out")
        stepped_by = choose_backend(settings.agent, place.device, place.backend, place.executor)
        told: dict[str, Any] = {"conditioning": settings.conditioning}
        if settings.layout is not None:
            told["layout"] = settings.layout
        blind = kind == "loo" and "blind" in settings.arms
        learner = dataclasses.asdict(
            describe_learner(settings.agent, family, self.changes(), blind=blind, **told)
        )
        title = "" if kind == "loo" else f"-{kind}"
        directory = self.out or Path("runs") / f"{family}-{self.preset}{title}".lower()
        count = len(settings.folds or mtenvs.tasks(family))
        if stepped_by == "warp" and settings.cohort_runs is None:
            fit = self.planned_runs(directory)
            if fit is None:
                check_device(place.device)  # what fits is told by a GPU of this machine
                apart = max(settings.budget, settings.pretrain_budget or 0)
                longest = count * settings.budget if kind == "joint" else apart
                fit = runs_that_fit(family, settings, learner["rollout"], place.device, longest)
            settings = dataclasses.replace(settings, cohort_runs=fit)
        if kind == "joint":
            wide = None
            if "joint-wide" in settings.joint_arms:
                wide = widened(learner["name"], family, learner["config"], count, **told)
            plan = make_joint_plan(family, settings, learner, wide, self.preset)
        else:
            make = make_matrix_plan if kind == "matrix" else make_plan
            plan = make(family, settings, learner, self.preset)
        self.warn(plan)
        if self.preset == "wide" and self.device == "cpu":
            say("note: wide is for a GPU: see 'mtenvs plan' for the hours that it takes here")
        if (dealt := plan["worlds_per_run"]) != (asked := settings.worlds_per_run):
            say(f"{dealt} worlds a run instead of {asked}, so that all tasks of a run have equally many")
        write_plan(plan, directory)
        return directory

    @staticmethod
    def planned_runs(directory: Path) -> int | None:
        """Runs of a batch in the plan that is there already, made when the device had other memory free."""
        return int(load_plan(directory)["cohort_runs"]) if (directory / PLAN).is_file() else None

    def warn(self, plan: Mapping[str, Any]) -> None:
        """Says so where runs are too short for their agent to learn anything."""
        first = find_agent(self.settings.agent).warm_up(plan["learner"]["config"])
        short = sorted({run["arm"] for run in plan["runs"] if run["steps"] <= first})
        if short:
            say(
                f"note: agent {self.settings.agent} learns nothing in its first {first:,} steps "
                f"(learning_starts), which is all that runs of {', '.join(short)} have"
            )

    def changes(self) -> dict[str, Any]:
        """Hyperparameters that are not to be the agent's defaults.

        Raises:
            ValueError: for words that are not NAME=VALUE, or a name that is given twice.
        """
        given, agent = self.settings.hyperparameters, self.settings.agent
        if (architecture := self.settings.architecture) is not None:
            if "architecture" not in find_agent(agent).hyperparameters:
                raise ValueError(f"agent {agent} has no choice of architectures: leave out --architecture")
            if any(word.startswith("architecture=") for word in given):
                raise ValueError("the architecture is given twice, by itself and as a hyperparameter")
            given = (*given, f"architecture={architecture}")
        changes: dict[str, Any] = {}
        for word in given:
            name, equals, value = word.partition("=")
            if not (name and equals) or name in changes:
                raise ValueError(
                    f"hyperparameters are NAME=VALUE, each once, as learning_rate=0.001; got {word!r}"
                )
            try:
                changes[name] = json.loads(value)
            except json.JSONDecodeError:
                changes[name] = value  # a word
        return changes

    def conclude(self, kind: str) -> None:
        """Plans, trains and reports; what failed is told last, when what did not is reported."""
        directory = self.write(kind)
        describe(directory)
        try:
            train(directory, self.place, self.settings.agent)
        except TrainingError:
            if has_results(directory):
                report(directory)
            raise
        report(directory)


@dataclasses.dataclass(frozen=True)
class Plan(Experiment):
    """Writes and prints the plan of an experiment: what it will do and take. Trains nothing."""

    kind: Literal["loo", "joint", "matrix"] = "loo"
    """The command whose plan it is."""

    def __call__(self) -> None:
        """Runs the command."""
        directory = self.write(self.kind)
        print_plan(directory, self.place, self.settings.agent)
        say(f"wrote {directory / PLAN}; train it with: {self.place.run_command(directory)}")


def _usable(kind: str) -> type[Preset]:
    """:class:`Preset` with the options that an experiment of a kind has a use for."""
    types = get_type_hints(Preset)
    hidden = [
        (f.name, Annotated[types[f.name], tyro.conf.Suppress], dataclasses.field(default=f.default))
        for f in dataclasses.fields(Preset)
        if f.name in UNUSED[kind]
    ]
    return dataclasses.make_dataclass(f"{kind}_settings", hidden, bases=(Preset,), frozen=True)


if TYPE_CHECKING:
    LooSettings = Preset
    JointSettings = Preset
    MatrixSettings = Preset
else:
    LooSettings, JointSettings, MatrixSettings = map(_usable, ("loo", "joint", "matrix"))


@dataclasses.dataclass(frozen=True)
class Loo(Experiment):
    """Runs a leave-one-out experiment: plans it if it is new, trains what is missing, and reports.

    Arms such as sources=1 or steps=100000 make it an experiment of doses.
    """

    settings: tyro.conf.OmitArgPrefixes[LooSettings] = dataclasses.field(default_factory=LooSettings)
    """What is done."""

    def __call__(self) -> None:
        """Runs the command."""
        self.conclude("loo")


@dataclasses.dataclass(frozen=True)
class Joint(Experiment):
    """Trains one network on all tasks beside one network for each, and reports which is the faster.

    --folds names the tasks.
    """

    settings: tyro.conf.OmitArgPrefixes[JointSettings] = dataclasses.field(default_factory=JointSettings)
    """What is done."""

    def __call__(self) -> None:
        """Runs the command."""
        self.conclude("joint")


@dataclasses.dataclass(frozen=True)
class Matrix(Experiment):
    """Learns every task from the network of every other single task: which source helps which target?"""

    settings: tyro.conf.OmitArgPrefixes[MatrixSettings] = dataclasses.field(default_factory=MatrixSettings)
    """What is done."""

    def __call__(self) -> None:
        """Runs the command."""
        self.conclude("matrix")


@dataclasses.dataclass(frozen=True)
class Run:
    """Trains whatever of a plan has no result yet."""

    directory: tyro.conf.Positional[Path]
    """Directory of the experiment."""
    device: str = "cpu"
    """Where networks live: cpu, or cuda."""
    backend: str | None = None
    """What steps the worlds: batch or warp; if left out, warp on a GPU for agents that can, else batch."""
    processes: int | None = None
    """Batches trained at a time, in processes of their own; one for each core if left out (on a GPU: one;
    with ray: as many as there is room for). Results do not depend on it."""
    save_every: float = SAVE_SECONDS
    """Seconds after which a training is saved, so that one that is killed goes on from there; 0 for after
    every rollout."""
    executor: Executor = "local"
    """Who trains: local, processes of this machine, or ray, a Ray cluster with a task for each batch."""
    address: str | None = None
    """Of the Ray cluster, HOST:PORT, or auto where this machine is one of its; if left out, this machine is
    made one for the time."""
    agent: str | None = None
    """Whom the plan trains, as module:Class; needed where it is no agent of mtenvs, for no file may name
    code."""

    def __call__(self) -> None:
        """Runs the command."""
        load_plan(self.directory)
        place = Place(
            self.device, self.backend, self.processes, self.save_every, self.executor, self.address
        )
        train(self.directory, place, self.agent)
        say(f"report it with: mtenvs report {self.directory}")


@dataclasses.dataclass(frozen=True)
class Status:
    """Says how far the training of a plan is: what is done, running and failed, and the time left."""

    directory: tyro.conf.Positional[Path]
    """Directory of the experiment."""

    def __call__(self) -> None:
        """Runs the command."""
        found = status_of(self.directory)
        store = Store(self.directory)
        if changed := store.changed():
            say(
                f"{plural(len(changed), 'run')} with rows that are not those of their results, the first "
                f"{changed[0]}: remove {store.place(changed[0])} and it is trained again"
            )
        runs = sum(found.runs.values())
        say(f"{self.directory}: {plural(runs, 'run')}, {found.steps / 1e6:.1f}M steps")
        for name, meaning in STATUS_WORDS.items():
            if count := found.runs.get(name, 0):
                say(f"  {count:>5} {meaning}")
        for first, (who, count) in found.running.items():
            say(f"  {who} trains {plural(count, 'run')}, the first {first}")
        for run_id, why in found.failed.items():
            say(f"  {run_id} failed: {why}")
        if all(name in COMPLETE for name in found.runs):
            say(f"report it with: mtenvs report {self.directory}")
            return
        share = 1.0 - found.steps_left / found.steps
        left = "" if math.isnan(found.hours_left) else f", about {_duration(found.hours_left)} left"
        say(f"{share:.0%} of the steps{left}")
        if not found.running:
            say(f"nobody trains it now; go on with: {run_command(self.directory, found.device)}")


STATUS_WORDS = {
    "finished": "finished",
    "diverged": "diverged, which is a result",
    "failed": "failed",
    "started": "begun",
    "missing": "not begun",
}
"""Statuses of runs, in words."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Rebuilds the report of an experiment from its stored rows."""

    directory: tyro.conf.Positional[Path]
    """Directory of the experiment."""

    def __call__(self) -> None:
        """Runs the command."""
        load_plan(self.directory)
        if not has_results(self.directory):
            raise PlanError(f"nothing trained yet: {run_command(self.directory)}")
        report(self.directory)


@dataclasses.dataclass(frozen=True)
class Rebuild:
    """Rebuilds from stored rows all reports, figures and tables below a directory, byte for byte."""

    directory: tyro.conf.Positional[Path] = Path("results")
    """Where to look."""
    processes: int = 0
    """Reports and pages at a time; 0 for one for each core."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.processes < 0:
            raise ValueError(f"processes must not be negative, got {self.processes}")
        found = plans_below(self.directory)
        with progress("rebuilding", "reports") as bar:
            task = bar.add_task("", total=len(found))
            rebuilt = rebuild(
                self.directory, self.processes or os.cpu_count() or 1, lambda: bar.advance(task)
            )
        for path in rebuilt.pages:
            say(str(path))
        for path in rebuilt.untrained:
            say(f"left out {path}: nothing trained yet")
        for path, why in rebuilt.failed.items():
            say(f"mtenvs: {path}: {why}", errors, "red")
        if rebuilt.failed:
            raise SystemExit(1)


@dataclasses.dataclass(frozen=True)
class Pack:
    """Packs the finished runs of a plan into Parquet, to be published; every command reads them as before.

    A batch of runs that were trained together is packed once, when all of them have their results, and
    never written again. What is not finished stays as it is; pack again when it is.
    """

    directory: tyro.conf.Positional[Path]
    """Directory of the experiment."""
    out: Path | None = None
    """Directory to pack into, new or of the same plan; if left out, this one, of which what is packed is
    then removed."""
    networks: int | None = None
    """Seeds of which pretrained networks are kept, for every fold and arm, and the first network of
    every arm that learns a task; without the optimiser's state. All of them, as they are, if left out. From
    3 on fresh seeds of mtenvs replicate can mostly tell whether they agree."""

    def __call__(self) -> None:
        """Runs the command."""
        load_plan(self.directory)
        found = pack(self.directory, self.out, self.networks)
        for number, why in found.left.items():
            say(f"batch {number} is not packed: {why}")
        say(
            f"packed {plural(found.new, 'batch')} into {found.size / 1e3:.0f} kB; {found.before} were "
            f"packed before: {plural(found.runs, 'run')} in all"
        )
        say(f"{plural(found.networks, 'network')}, {found.networks_size / 1e6:.2f} MB")


@dataclasses.dataclass(frozen=True)
class Replicate:
    """Trains a cell of a stored plan, a fold and an arm, again, and says whether it agrees with that.

    With fresh seeds, which the plan never used: ends with 0 if the mean times agree, 1 if they differ
    beyond chance, 2 if that cannot be told. With --same-seed, a stored run with its own: 0 if all rows are
    the same to the last bit, 1 if they are not, 2 if they are not and the machine or its versions are
    others.
    """

    directory: tyro.conf.Positional[Path]
    """Directory of the experiment."""
    fold: int | str | None = None
    """Number or name of the cell's task; leave it out for networks of all tasks (--arm joint)."""
    arm: str = "transfer"
    """Of the cell."""
    seeds: int = 3
    """How many fresh ones."""
    first_seed: int | None = None
    """Number of the first of them, to train others than before; the first that the plan does not have, if
    left out."""
    same_seed: int | None = None
    """Train the stored run of this seed again, instead of fresh ones."""
    pretrain: bool = False
    """Pretrain anew too, instead of starting from published networks."""
    out: Path | None = None
    """Directory to train in, and to go on in; one that is removed afterwards, if left out."""
    device: str = "cpu"
    """Where networks live: cpu, or cuda."""
    backend: str | None = None
    """What steps the worlds: batch or warp; if left out, warp on a GPU for agents that can, else batch."""
    processes: int | None = None
    """Batches trained at a time; one for each core if left out (on a GPU: one)."""
    agent: str | None = None
    """Whom the plan trains, as module:Class; needed where it is no agent of mtenvs, for no file may name
    code."""

    def __call__(self) -> None:
        """Runs the command."""
        plan = load_plan(self.directory)
        place = Place(self.device, self.backend, self.processes)
        with contextlib.ExitStack() as stack:
            out = self.out
            if out is None:
                out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mtenvs-"))) / "replica"
            fold = fold_number(plan, self.fold)
            if self.same_seed is None:
                cell = (fold, self.arm)
                plan_fresh(
                    self.directory, out, *cell, self.seeds, self.first_seed, self.pretrain, self.agent
                )
                describe(out)
                train(out, place, self.agent)
                verdict = compare_fresh(self.directory, out, *cell)
            else:
                run = run_of(plan, fold, self.arm, self.same_seed)
                plan_again(self.directory, out, run, self.pretrain, self.agent)
                train(out, place, self.agent)
                verdict = compare_again(self.directory, out, run)
        say(verdict.text)
        raise SystemExit(verdict.code)


@dataclasses.dataclass(frozen=True)
class Tasks:
    """Lists the families, or the tasks of one with their parameters."""

    family: tyro.conf.Positional[str | None] = None
    """Name of the family, or AllFamilies; a list of all families if left out."""
    markdown: bool = False
    """Print the page docs/tasks.md, with everything about all families, instead."""
    readme: Path | None = None
    """File in which to renew the table of families, between its marks, instead."""

    def __call__(self) -> None:
        """Runs the command."""
        if (self.markdown or self.readme is not None) and self.family is not None:
            raise ValueError(f"--markdown and --readme are about all families: leave out {self.family!r}")
        if self.readme is not None:
            text = self.readme.read_text(encoding="utf-8")
            self.readme.write_text(with_families_table(text), encoding="utf-8")
            return
        if self.markdown:
            print(page(), end="")
            return
        whole = everything()
        together = "all of them in one layout; a task is written FAMILY/TASK"
        if self.family is None:
            table = Table("id", "tasks", "parameters", "what it is")
            for family in whole.families:
                table.add_row(
                    family.id, str(len(family.tasks)), str(len(family.parameters)), family.summary
                )
            table.add_row(whole.id, str(len(whole.tasks)), "", together)
            console.print(table)
            return
        if self.family == ALL_FAMILIES:
            say(f"{whole.id}: {together}\n")
            table = Table("", "task")
            for number, t in enumerate(whole.tasks):
                table.add_row(str(number), f"{t.family}/{t.name}")
            console.print(table)
            return
        family = mtenvs.get_family(self.family)
        published = family.tasks
        say(f"{family.id}: {family.summary}\n")
        table = Table("parameter", "nominal", "range", "unit", "why this range")
        for p in family.parameters:
            table.add_row(p.name, f"{p.nominal:g}", f"{p.low:g} to {p.high:g}", p.unit, p.reason)
        console.print(table)
        table = Table("", "task", "differs from nominal in", "nearest (descriptor units)")
        for t in published:
            near, distance = nearest(family, t)
            table.add_row(str(t.number), t.name, differences(family, t), f"{near.name}, {distance:.2f}")
        console.print(table)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Makes reference scores (random, zero and well-trained returns) of the tasks that have none yet."""

    family: tyro.conf.Positional[str]
    """Name of the family."""
    out: Path | None = None
    """File to write; the installed one if left out."""
    fresh: bool = False
    """Measure all tasks anew."""
    restamp: bool = False
    """Measure nothing: note that a change to the family's code has left returns as they were."""
    device: str = "cpu"
    """Where networks live: cpu, or cuda."""
    settings: tyro.conf.OmitArgPrefixes[ReferenceConfig] = dataclasses.field(
        default_factory=ReferenceConfig
    )
    """How to measure; where scores are added to a file, as those in it were measured."""

    @property
    def path(self) -> Path:
        """The file to write."""
        family = mtenvs.get_family(self.family)
        return self.out or reference_path(family.name, family.version)

    def existing(self) -> dict[str, Any] | None:
        """The record that scores are to be added to."""
        return json.loads(self.path.read_text()) if self.path.is_file() and not self.fresh else None

    def __call__(self) -> None:
        """Runs the command."""
        family, config, path, old = (
            mtenvs.get_family(self.family),
            self.settings,
            self.path,
            self.existing(),
        )
        if self.restamp:
            if old is None:
                raise ValueError(f"there is nothing to restamp: {path} is missing, or --fresh was given")
            write_reference(restamped(family, old), path)
            say(f"restamped {path}")
            return
        if old is not None:
            check_alike(old, origin(family, config))
        check_device(self.device)
        missing = [t.name for t in family.tasks] if old is None else unmeasured(family, old)
        if old is not None and not missing:
            say(f"{path} has scores of all tasks; measure them anew with --fresh")
            self.check(old)
            return
        record = with_bar(
            "reference",
            config.steps * config.seeds * len(missing),
            lambda advance: make_reference(family.name, config, missing, self.device, advance),
        )
        table = Table("task", "random", "zero", "reference", "success")
        for name, task in record["tasks"].items():
            scores = [
                f"{task[k]['mean']:.1f} ± {task[k]['std']:.1f}" for k in ("random", "zero", "reference")
            ]
            table.add_row(name, *scores, f"{task['reference']['success']:.2f}")
        console.print(table)
        write_reference(record if old is None else merge(old, record), path)
        say(f"wrote {path}")
        self.check(record)

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Ends the command in an error that names tasks of a record that are not fit to be published."""
        if found := shortcomings(record):
            raise PlanError("these tasks should not be published: " + "; ".join(found))


@dataclasses.dataclass(frozen=True)
class Export:
    """Writes the MJCF of every published task, which loads in any MuJoCo."""

    family: tyro.conf.Positional[str | None] = None
    """Name of the family; all families if left out."""
    out: Path = Path("assets/xml")
    """Directory to write to."""

    def __call__(self) -> None:
        """Runs the command."""
        # bodies that come from another package stay there, unless they are asked for by name
        ours = [name for name in mtenvs.families() if not mtenvs.get_family(name).source]
        if self.family is None:
            for name in (name for name in mtenvs.families() if name not in ours):
                source = mtenvs.get_family(name).source
                errors.print(f"left out {name}, whose bodies belong to {source}", markup=False)
        for name in ours if self.family is None else (self.family,):
            for path in export(self.out, name):
                say(str(path))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Writes all evaluations of finished or running experiments as one Parquet file."""

    directories: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Directories of the experiments."""
    out: Path = Path("rows.parquet")
    """File to write."""
    columns: bool = False
    """Print the page docs/rows.md, with what the columns mean, instead."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.columns == bool(self.directories):
            raise ValueError("give directories of experiments, or --columns without directories")
        if self.columns:
            print(columns_page(), end="")
            return
        for directory in self.directories:
            check_frozen(directory)
        rows = export_table(self.directories, self.out)
        plans = len(self.directories)
        say(f"wrote {self.out}: {rows} evaluations of {plans} plan{'s' * (plans > 1)}")


@dataclasses.dataclass(frozen=True)
class Compare:
    """Sets finished leave-one-out plans, of two agents for instance, side by side, paired by fold."""

    directories: tyro.conf.Positional[tuple[Path, ...]]
    """Directories of the experiments; ratios are against the first."""
    out: Path | None = None
    """CSV to write the numbers to."""

    def __call__(self) -> None:
        """Runs the command."""
        for directory in self.directories:
            check_frozen(directory)
        comparison = compare(self.directories)
        say(comparison.text())
        if self.out is not None:
            comparison.table().to_csv(self.out, index=False)
            say(f"wrote {self.out}")


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """Lists all leave-one-out plans below a directory by the primary measure, with intervals.

    Joint plans follow in a table of their own, by the score that one network reaches on all tasks.
    """

    directory: tyro.conf.Positional[Path] = Path("results")
    """Where to look."""
    markdown: bool = False
    """Print Markdown tables."""
    out: Path | None = None
    """CSV to write the numbers to."""

    def __call__(self) -> None:
        """Runs the command."""
        board = leaderboard(self.directory, check=check_frozen)
        say(board.markdown() if self.markdown else board.text())
        if self.out is not None:
            board.numbers().to_csv(self.out, index=False)
            say(f"wrote {self.out}")


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Draws all published tasks of a family side by side, at one scale."""

    family: tyro.conf.Positional[str | None] = None
    """Name of the family."""
    out: Path = Path("sheet.png")
    """PNG to write."""
    all: Path | None = None
    """Directory for sheets of all families, each FAMILY.png, instead."""

    def __call__(self) -> None:
        """Runs the command."""
        if (self.family is None) == (self.all is None):
            raise ValueError("name either a family, or a directory for all of them with --all")
        sheets = {str(self.family): self.out}
        if self.all is not None:
            sheets = {name: self.all / f"{name}.png" for name in mtenvs.families()}
        for name, path in sheets.items():
            sheet(name, path)
            say(f"wrote {path}")


@dataclasses.dataclass(frozen=True)
class View:
    """Opens MuJoCo's viewer on a task, at life speed, episode after episode.

    With neither --policy nor --random the body is left alone: push it with the mouse (double-click it,
    then drag with Ctrl held), or move the sliders of its motors.
    """

    family: tyro.conf.Positional[str]
    """Name of the family, or AllFamilies."""
    task: str = "0"
    """Number or name of the task; FAMILY/TASK in AllFamilies."""
    policy: Path | None = None
    """Directory of a checkpoint whose network acts, as in runs/quickstart/checkpoints."""
    agent: str | None = None
    """Whose the checkpoint is, as module:Class: needed if its agent is none of ours, whose code is run."""
    random: bool = False
    """Act at random."""
    seed: int = 0
    """Of starts and random actions."""

    def trained(self) -> Policy | None:
        """The network that acts, if one does."""
        if self.policy is not None and self.random:
            raise ValueError("give --policy or --random, not both")
        if self.policy is None:
            if self.agent is not None:
                raise ValueError(f"--agent says whose a checkpoint is: give --policy with {self.agent}")
            return None
        return load_policy(self.policy, self.family, agent=self.agent)

    def player(self, **options: Any) -> Player:
        """The world to show, and what moves it."""
        player = Player(self.family, self.task, self.policy_of_task(), self.random, self.seed, **options)
        say(f"{player.world.spec.id}, task {player.task.name}")
        return player

    def policy_of_task(self) -> Policy | None:
        """The network that acts, with what is to be known of it on this task said."""
        policy = self.trained()
        if policy is None:
            return None
        families = get_families(self.family)
        task, taught = as_task(families, self.task), policy.lessons.tasks
        if taught and task.name not in taught:
            say(f"note: this network was last trained on {', '.join(taught)}, not on {task.name}")
        if policy.lessons.code is not None:
            say("note: it was taught with the mean of its sources' codes, not its task's: it is told that")
        return policy

    def __call__(self) -> None:
        """Runs the command."""
        with self.player() as player:
            check_display(self.words())
            view(player, say)

    def words(self) -> str:
        """What to type after the name of the command to have the same shown."""
        options = {"task": self.task, "policy": self.policy, "agent": self.agent}
        given = [
            f"--{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None
        ]
        seed = f"--seed {self.seed}" if self.seed else ""
        return " ".join(filter(None, [self.family, *given, "--random" if self.random else "", seed]))


@dataclasses.dataclass(frozen=True)
class Video(View):
    """Films a task at life speed, without a window; when an episode ends, the next begins.

    With neither --policy nor --random the motors stay at zero.
    """

    out: Path = Path("video.mp4")
    """File to write: .mp4 or .gif."""
    seconds: float = 10.0
    """Length."""
    width: int = 640
    """Of the pictures, in pixels."""
    height: int = 480
    """Of the pictures, in pixels."""

    def __call__(self) -> None:
        """Runs the command."""
        check_film(self.out, self.seconds, self.height, self.width)
        with self.player(render_mode="rgb_array", width=self.width, height=self.height) as player:
            # takes longer than to watch
            with progress("filming", "frames") as bar:
                task = bar.add_task("", total=frames(player, self.seconds))
                episodes = film(player, self.out, self.seconds, lambda: bar.advance(task))
            say(summary(episodes))
        say(f"wrote {self.out}")


@dataclasses.dataclass(frozen=True)
class Record(View):
    """Writes episodes as a Minari dataset, for offline reinforcement learning.

    Of the network of --policy, without noise, or of actions at --random.
    """

    episodes: int = 100
    """How many."""
    out: Path | None = None
    """Directory of Minari datasets; Minari's own, MINARI_DATASETS_PATH or at home, if left out."""
    id: str | None = None
    """Of the dataset: namespace/name-v0; if left out, such as mtenvs/biped/child-ppo-v0."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.policy is None and not self.random:
            raise ValueError("nobody acts: give --policy DIR or --random")
        recording = Recording(
            self.family, self.task, self.episodes, self.policy_of_task(), self.seed, self.out, self.id
        )
        with progress("recording", "episodes") as bar:
            task = bar.add_task("", total=self.episodes)
            dataset = recording.write(lambda done: bar.advance(task, done))
        say(summary(recorded(dataset)))
        say(f"wrote {dataset.storage.data_path.parent}")
        say(f"read it with: {reading(dataset, self.out)}")


@dataclasses.dataclass(frozen=True)
class Verify:
    """Checks by simulation that the report's intervals and tests are right as often as they say."""

    out: Path | None = None
    """Markdown file to write; docs/coverage.md for the full study, none for a smaller one."""
    trials: int | None = None
    """Trials of every scenario; each scenario's own number if left out."""
    quick: bool = False
    """With few trials: some seconds instead of some ten minutes."""

    def __call__(self) -> None:
        """Runs the command."""
        full = self.trials is None and not self.quick
        out = Path("docs/coverage.md") if self.out is None and full else self.out
        if out is not None and not out.parent.is_dir():
            raise ValueError(f"there is no directory {out.parent}; name a file to write with --out")
        with progress("simulating", "scenarios") as bar:
            task = bar.add_task("", total=len(verify.scenarios()))
            results = verify.study(self.trials, self.quick, lambda done: bar.advance(task, done))
        text = verify.page(results, verify.biases(verify.DISCRETISED_RUNS if full else verify.QUICK_RUNS))
        say(text)
        if out is not None:
            out.write_text(text, encoding="utf-8")
            say(f"wrote {out}")
        if failed := verify.broken(results):
            for result in failed:
                errors.print(
                    f"mtenvs: {result.claim.bounds.text}, but {result}",
                    style="red",
                    markup=False,
                    highlight=False,
                )
            raise SystemExit(1)


def say(text: str, to: Console = console, style: str | None = None) -> None:
    """Prints text as it is: what users name things is no markup, and no command to the terminal."""
    seen = re.sub(r"[^\S \n\t]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "\ufffd", text)
    to.print(seen, markup=False, highlight=False, style=style)


def check_frozen(directory: Path) -> None:
    """Refuses a plan that was edited; one of an older format cannot be run any more, but is still read."""
    Store(directory).check_frozen()


def describe(directory: Path) -> None:
    """Prints in one line what a plan is going to do."""
    plan = load_plan(directory)
    steps = sum(run["steps"] for run in plan["runs"])
    before = sum(run["phase"] == "pretrain" for run in plan["runs"])
    tasks = "task" if plan["kind"] == "joint" else "fold"
    size = [
        plural(len(plan["folds"]), tasks),
        plural(plan["seeds"], "seed"),
        plural(len(plan["arms"]), "arm"),
    ]
    first = f", and {plural(before, 'pretraining')}" if before else ""
    say(
        f"{plan['title']}: {' x '.join(size)}{first}: {plural(len(plan['runs']), 'run')} in "
        f"{plural(len(plan['cohorts']), 'batch')}, {steps / 1e6:.1f}M steps"
    )
    learner = plan["learner"]
    kind = learner["config"].get("architecture")
    say(
        f"agent {learner['name']}{f' ({kind})' if kind else ''}, version {learner['version']}: "
        f"{learner['parameters']:,} parameters a network"
    )
    if unusual := variant(plan):
        say(f"not the usual experiment: {unusual}")


def print_plan(directory: Path, place: Place, agent: str) -> None:
    """Prints a plan for people: its runs, and what they will take of this machine."""
    plan = load_plan(directory)
    describe(directory)
    table = Table("phase", "arm", "starts from", "runs", "folds", "M steps")
    for row in summarise(plan):
        table.add_row(*map(str, row))
    console.print(table)
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    joint = plan["kind"] == "joint"
    say(f"{'tasks' if joint else 'held out'}: {', '.join(names[k] for k in plan['folds'])}")
    headline = "" if plan["kind"] != "leave_one_out" else f"; headline: {plan['headline']}"
    say(f"budget {plan['budget']:,} steps, {plan['worlds_per_run']} worlds a run{headline}")
    nearest = [min(d.values()) for d in plan["leaks"]["distances"].values() if d]
    if nearest:
        say(
            f"no training task is nearer to a held-out one than {min(nearest):.2f} descriptor units "
            f"(at least {plan['min_distance']} asked)"
        )
    if place.at_a_time is None:
        say("how long it takes is the cluster's matter; without --executor ray, it is told of this machine")
        return
    with console.status("measuring this machine's speed for some seconds"):
        estimate = estimate_cost(directory, place.device, place.at_a_time, agent, place.backend)
    say(
        f"about {_duration(estimate.hours)} here ({estimate.train_speed:,.0f} steps/s trained, "
        f"{estimate.test_speed:,.0f} evaluated), {estimate.megabytes:,.0f} MB on disk"
    )
    if not math.isnan(estimate.memory):
        _warn_of_memory(estimate.memory)


def _warn_of_memory(needed: float) -> None:
    """Says so where training takes more memory than is free, in GB."""
    import psutil  # as in harness.run

    if needed > SHARE * (free := psutil.virtual_memory().available / 1e9):
        say(
            f"note: training takes {needed:,.1f} GB of memory or more, and {free:,.1f} are free, of which "
            f"{SHARE:.0%} should do: train with fewer --processes, or plan, into another --out, with fewer "
            "--cohort-runs or --worlds-per-run, or for a GPU"
        )


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def has_results(directory: Path) -> bool:
    """Whether any run of a plan has ended, be it in failure."""
    return any(status in (*COMPLETE, "failed") for status in Store(directory).status().values())


def train(directory: Path, place: Place, agent: str | None) -> None:
    """Trains a plan's missing runs behind a progress bar."""
    agent_to_run(load_plan(directory), directory, agent)
    total = pending_steps(directory)
    if total == 0:
        say("nothing left to train")
        return
    go_on = place.run_command(directory)
    before = {number: signal.getsignal(number) for number in STOPS}
    # ignored by what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # what ends a job on a cluster, or comes of a lost connection, is to lose no more than Ctrl-C does
    for number in STOPS - {signal.SIGINT}:
        if before[number] != signal.SIG_IGN:  # by nohup
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with_bar(
            "training",
            total,
            lambda advance: run_plan(
                directory,
                place.device,
                advance,
                place.at_a_time,
                agent,
                place.backend,
                place.save_every,
                place.executor,
                place.address,
                say,
            ),
        )
    except KeyboardInterrupt:
        say(f"stopped; trainings are kept as they were last saved. Go on with: {go_on}")
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        say(f"stopped; what was stored is whole. When there is a disk to store on, go on with: {go_on}")
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(directory)) from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # which cannot be told where the directory is gone
        with contextlib.suppress(OSError, ValueError):
            say_diverged(directory)


def say_diverged(directory: Path) -> None:
    """Prints how many runs of a plan met numbers that are not finite, if any."""
    status = list(Store(directory).status().values())
    if diverged := status.count("diverged"):
        say(f"{diverged} of {plural(len(status), 'run')} diverged: numbers that are not finite were met")


def progress(name: str, unit: str) -> Progress:
    """A progress bar that counts in ``unit``."""
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TextColumn(f"{unit}, left:"), TimeRemainingColumn(), console=console)


def with_bar(name: str, total: int, work: Callable[[Callable[[int], object]], Any]) -> Any:
    """Calls ``work`` with a function that moves a progress bar of ``total`` steps."""
    with progress(name, "k steps") as bar:
        task = bar.add_task(name, total=total // KILO)
        done, told = 0, time.monotonic()

        def advance(steps: int) -> None:
            nonlocal done, told
            done += steps
            bar.update(task, completed=min(done, total) // KILO)
            # a bar is drawn in a terminal alone; a file that is written to gets a line now and then
            if not console.is_terminal and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                say(f"{name}: {min(done, total) // KILO:,} of {total // KILO:,} k steps")

        return work(advance)


def report(directory: Path) -> None:
    """Writes the report and prints its summary."""
    path = write_report(directory)
    say(summary_table(directory))
    say(f"report: {path}")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: words after the program's name; the process's own if left out.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        say(f"mtenvs {mtenvs.__version__}")
        return
    preset = _preset(arguments)
    default = PRESETS[preset]
    commands: Any = functools.reduce(
        operator.or_,
        (
            Annotated[
                kind,
                tyro.conf.subcommand(
                    name, default=kind(tyro.MISSING, preset=preset, settings=settings(**vars(default)))
                ),
            ]
            for name, (kind, settings) in {
                "plan": (Plan, Preset),
                "loo": (Loo, LooSettings),
                "joint": (Joint, JointSettings),
                "matrix": (Matrix, MatrixSettings),
            }.items()
        ),
    )
    commands = (
        commands
        | Annotated[Run, tyro.conf.subcommand("run")]
        | Annotated[Status, tyro.conf.subcommand("status")]
        | Annotated[Report, tyro.conf.subcommand("report")]
        | Annotated[Rebuild, tyro.conf.subcommand("rebuild")]
        | Annotated[Pack, tyro.conf.subcommand("pack")]
        | Annotated[Replicate, tyro.conf.subcommand("replicate")]
        | Annotated[Tasks, tyro.conf.subcommand("tasks")]
        | Annotated[
            Reference,
            tyro.conf.subcommand(
                "reference", default=Reference(tyro.MISSING, settings=_measured(arguments))
            ),
        ]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Rows, tyro.conf.subcommand("table")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Leaderboard, tyro.conf.subcommand("leaderboard")]
        | Annotated[Sheet, tyro.conf.subcommand("sheet")]
        | Annotated[View, tyro.conf.subcommand("view")]
        | Annotated[Video, tyro.conf.subcommand("video")]
        | Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
    )
    try:
        tyro.cli(
            commands,
            args=arguments,
            prog="mtenvs",
            description="Measures transfer between MuJoCo tasks. mtenvs --version says which this is.",
        )()
    except (ValueError, OSError, RenderingError, MissingPackageError) as error:
        # what users can mend; anything else is a bug and keeps its traceback
        say(f"mtenvs: {error}", errors, "red")
        raise SystemExit(2) from None
    except TrainingError as error:
        say(f"mtenvs: {error}", errors, "red")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say("mtenvs: interrupted", errors, "red")
        raise SystemExit(INTERRUPTED) from None


def _measured(arguments: list[str]) -> ReferenceConfig:
    """What ``reference`` measures by unless told otherwise: as the file that it adds to was made."""
    if arguments[:1] == ["reference"]:
        asked = tyro.cli(Reference, args=arguments[1:], prog="mtenvs reference")
        # what is wrong with the file, or the family's name, the command itself will say
        with contextlib.suppress(ValueError, OSError, KeyError, TypeError):
            if old := asked.existing():
                return ReferenceConfig(**old["config"])
    return ReferenceConfig()


def _preset(arguments: list[str]) -> str:
    """The preset named on the command line, whose values are the other options' defaults."""
    name = "standard"
    for i, word in enumerate(arguments):
        if word.startswith("--preset="):
            name = word.partition("=")[2]
        elif word == "--preset" and i + 1 < len(arguments):
            name = arguments[i + 1]
    if name not in PRESETS:
        say(f"mtenvs: unknown preset {name!r}; valid: {', '.join(PRESETS)}", errors, "red")
        raise SystemExit(2)
    return name
