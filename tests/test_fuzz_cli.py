"""The command line, given all sorts of words: it does something, or says in a few lines what is wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import shutil
from pathlib import Path

import pytest
from fuzzing import cases, remove, seeds, small_learner, tally, within
from hypothesis import example, given
from synthetic import ramp, write_planned

import harness.cli as cli
from baselines.registry import make_learner
from harness.plan import Preset, make_plan
from harness.reference import ReferenceConfig
from harness.run import Cost
from mtenvs.vector_env import TaskVectorEnv

PLANNED = {"loo": cli.Loo, "plan": cli.Plan, "joint": cli.Joint, "matrix": cli.Matrix}
COMMANDS = PLANNED | {
    "run": cli.Run,
    "status": cli.Status,
    "report": cli.Report,
    "tasks": cli.Tasks,
    "reference": cli.Reference,
    "export": cli.Export,
    "table": cli.Rows,
    "compare": cli.Compare,
    "leaderboard": cli.Leaderboard,
    "sheet": cli.Sheet,
    "view": cli.View,
    "video": cli.Video,
    "record": cli.Record,
    "verify": cli.Verify,
}
OF_SETTINGS = {**dict.fromkeys(PLANNED, Preset), "reference": ReferenceConfig}

MEANT = {
    "family": ("Biped", "Octopus", "BipedSkills", "AllFamilies"),
    "directory": ("store", "other"),
    "directories": ("store", "other"),
    "out": ("new", "new.gif", "new.mp4", "new.csv", "new.png", "a/b/new"),
    "policy": ("network",),
    "agent": ("ppo", "sb3:ppo", "sb3:sac", "evil:Agent"),
    "task": ("0", "child", "Biped/child"),
    "preset": ("quick", "standard", "full", "wide"),
    "device": ("cpu",),
    "backend": ("batch",),
    "kind": ("loo", "joint", "matrix"),
    "folds": ("3", "5"),
    "arms": ("scratch", "transfer", "blind", "sources=2", "steps=1000"),
    "joint_arms": ("joint", "separate", "joint-wide"),
    "conditioning": ("descriptor", "one_hot", "none"),
    "layout": ("arc", "index"),
    "new_code": ("true", "unused", "mean"),
    "architecture": ("film", "own_layers", "concatenation"),
    "hyperparameters": ("hidden=[4]", "gamma=0.9", "learning_rate=1e-3", "hidden=x", "gamma=NaN"),
    "headline": ("all_folds", "not_yet_solved"),
    "id": ("mtenvs/own-v0",),
    "readme": ("store/plan.json",),
    "all": ("sheets",),
}
"""What may be meant by the options of these names; whole numbers otherwise."""
COUNTS = ("1", "2", "100", "1000", "56")
ODD = (
    *("", " ", "0", "-1", "3.5", "nan", "inf", "-inf", "1e400", "1_000", "0x10", "9" * 30, "1000000000"),
    *("9" * 5000, "True", "None", "null", "biped", "Bipd", "missing", "../up", "/proc/nowhere/x"),
    *("ünï→😀", "\udcff", "x" * 3000, "[/b]", "[bold]", "--", "-", "-h", "--help", "--seeds", "=", "a=b=c"),
    *("evil:Agent", "os:system", ":", "a:b:c", "$HOME", "%s", "{0}", "~", ".", "scratch,transfer", "\\n"),
    *("sources=0", "sources=99", "steps=-1", "sources=9999999999", "steps=" + "9" * 40, "cuda:9", "warp"),
    *('hidden=[1e9]', 'hidden=[]', "hidden=[-1]", "gamma=1e999", "=1", "network"),
)  # fmt: skip


def words(rng: random.Random) -> list[str]:
    """A command with some of its options, mostly as they are meant."""
    name = rng.choice([*COMMANDS, *PLANNED])
    kind = COMMANDS[name]
    fields = [field.name for field in dataclasses.fields(kind) if field.name != "settings"]
    fields += [field.name for field in dataclasses.fields(OF_SETTINGS[name])] if name in OF_SETTINGS else []
    wild = rng.choice((0.0, 0.05, 0.3))

    def value(field: str) -> str:
        return rng.choice(ODD) if rng.random() < wild else rng.choice(MEANT.get(field, COUNTS))

    found = [name]
    for field in fields[:1]:  # where there is a positional argument, it is the first
        if field in ("family", "directory", "directories") and rng.random() < 0.95:
            found += [value(field) for _ in range(rng.choice((1, 1, 2)) if field == "directories" else 1)]
    if name in PLANNED and rng.random() < 0.9:
        found += ["--preset", "quick", "--seeds", "1", "--folds", "3"]
    for field in rng.choices(fields, k=rng.choice((0, 0, 1, 1, 2, 3))):
        option = f"--{field.replace('_', '-')}"
        if rng.random() < wild:
            option = rng.choice((option[:-1], option.upper(), f"{option}x", f"no-{option}", "---"))
        of_flag = rng.random() < 0.1
        found += [option] if of_flag else [option, *(value(field) for _ in range(rng.choice((1, 1, 1, 2))))]
    if rng.random() < wild:
        rng.shuffle(found)
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with two finished stores and a network; nothing is trained, drawn or measured there."""
    inner = tmp_path_factory.mktemp("cli") / "deep" / "cwd"
    inner.mkdir(parents=True)
    for name, seed in (("store", 0), ("other", 1)):
        settings = Preset(
            title=name, folds=(3,), arms=("scratch", "transfer"), seeds=1, budget=8000,
            pretrain_budget=8000, checkpoints=4, episodes=2, first_episodes=100, root_seed=seed,
        )  # fmt: skip
        plan = make_plan("Biped", settings, small_learner())
        write_planned(inner / name, plan, {3: ramp(2.0, scratch_steps=5000)})
    make_learner("ppo", {"hidden": [4]}, TaskVectorEnv("Biped", 1), [0]).save(0, inner / "network")

    class Unrecorded(cli.Recording):
        def write(self, *_):
            raise ValueError("nothing is recorded here")

    def written(directory):
        return Path(directory) / "report" / "index.html"

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inner)
        patch.setenv("MINARI_DATASETS_PATH", str(inner / "minari"))
        patch.setattr(cli, "Recording", Unrecorded)
        patch.setattr(cli, "run_plan", lambda *_, **__: None)
        patch.setattr(cli, "estimate_cost", lambda *_: Cost(0.1, 1.0, 1.0, 1.0))
        patch.setattr(cli, "write_report", written)
        patch.setattr(cli, "make_reference", lambda *_: {"tasks": {}})
        patch.setattr(cli, "write_reference", lambda *_: None)
        patch.setattr(cli, "merge", lambda old, _: old)
        patch.setattr(cli, "export", lambda *_: [])
        patch.setattr(cli, "sheet", lambda *_: None)
        patch.setattr(cli, "view", lambda *_: None)
        patch.setattr(cli, "film", lambda *_: [])
        patch.setattr(cli.verify, "study", lambda *_: [])
        patch.setattr(cli.verify, "biases", lambda *_: [])
        patch.setattr(cli.verify, "page", lambda *_: "")
        patch.setattr(cli, "summary", lambda *_: "")
        yield inner


@pytest.fixture(scope="module")
def counted():
    with tally("cli") as found:
        yield found


def outside(place: Path) -> set[Path]:
    """What lies around the directory that commands are run in."""
    return {path for path in place.parents[1].rglob("*") if not path.is_relative_to(place)}


def ended(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code and output of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), within():
        try:
            cli.main(arguments)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, out.getvalue(), err.getvalue()


@given(seeds)
@example(0)
@cases(40)
def test_any_words(place, counted, seed):
    arguments = words(random.Random(seed))
    there, around = set(place.iterdir()), outside(place)
    code, out, err = ended(arguments)
    for path in set(place.iterdir()) - there:
        remove(path)
    for path in outside(place) - around:
        assert "../up" in " ".join(arguments), path
        remove(path)
    assert "Traceback" not in out + err, arguments
    if code == 0:
        counted.accepted += 1
        return
    counted.refused[f"exit {code}"] += 1
    assert code in (1, 2), arguments
    said = err.strip()
    assert said, arguments
    if said.startswith("mtenvs:"):  # tyro's own have a list of options
        assert len(said.splitlines()) <= 30, arguments


def test_nothing_of_the_store_is_touched(place):
    """Commands that are refused leave results as they were; those above were tried on the same store."""
    assert (place / "store" / "plan.json").is_file()
    code, out, _ = ended(["status", "store"])
    assert code == 0
    assert "finished" in out
    shutil.rmtree(place / "store" / "report", ignore_errors=True)
