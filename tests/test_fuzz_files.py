"""Files of an experiment, spoilt in all sorts of ways: what is read is what they say, or is refused.

Where a file has a hash of its own, that is mostly made anew, so that it does not hide all other checks.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fuzzing import (
    cases,
    json_values,
    odd,
    remove,
    seeds,
    small_learner,
    spoil_bytes,
    spoil_file,
    spoil_json,
    spoil_lines,
    tally,
)
from hypothesis import given
from synthetic import ramp, write_planned
from test_resume import killed_after, planned

import harness.run
from baselines.checkpoint import FACTS, LESSONS, TENSORS, Lessons, sealed
from baselines.registry import load_policy, make_learner
from harness.compare import compare, leaderboard
from harness.plan import Preset, load_plan, make_plan
from harness.report import summary_table, write_report
from harness.run import pending_steps, run_plan
from harness.status import status_of
from harness.store import ROW_COLUMNS, Store, digest
from harness.table import evaluation_table, export_table
from mtenvs.vector_env import TaskVectorEnv

SETTINGS = Preset(
    title="fuzzed", exploratory=True, folds=(3, 5), arms=("scratch", "transfer"), seeds=2, budget=8000,
    pretrain_budget=8000, checkpoints=4, episodes=2, first_episodes=100, min_distance=0.0,
)  # fmt: skip
replacements = odd | json_values


@contextlib.contextmanager
def nothing_is_trained():
    """Whatever would be trained is noted instead."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:

        def train(directory, cohort, *_, **__):
            asked.append(cohort)
            return True

        patch.setattr(harness.run, "_train_cohort", train)
        yield asked


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store that is sound, of which one run of each phase is missing, and what is read of it."""
    directory = tmp_path_factory.mktemp("fuzz") / "experiment"
    plan = make_plan("Biped", SETTINGS, small_learner())
    write_planned(directory, plan, {k: ramp(2.0, seed=k, scratch_steps=5000) for k in plan["folds"]})
    for phase in ("pretrain", "learn"):
        gone = [run["id"] for run in plan["runs"] if run["phase"] == phase][-1]
        shutil.rmtree(directory / "runs" / gone)
    other = directory.parent / "other"
    shutil.copytree(directory, other)
    again = {**plan, "title": "another"}
    (other / "plan.json").write_text(json.dumps({**again, "sha256": digest(again)}))
    return directory


@pytest.fixture(scope="module")
def sound(whole):
    """What is read of the store while it is sound."""
    return {"summary": summary_table(whole), "table": evaluation_table(whole)}


@contextlib.contextmanager
def spoilt(path: Path):
    """Gives a file back as it was."""
    before = path.read_bytes()
    try:
        yield before
    finally:
        remove(path)
        path.write_bytes(before)


def read_all(directory: Path, counted, rng: random.Random) -> dict:
    """What reads an experiment, each accepted or refused by itself; what takes its time, only sometimes."""
    out = directory.parent / "out"
    readers = {
        "plan": lambda: load_plan(directory),
        "status": lambda: status_of(directory),
        "runs": lambda: Store(directory).runs(),
        "rows": lambda: Store(directory).evaluations(),
        "changed": lambda: Store(directory).changed(),
        "table": lambda: evaluation_table(directory),
        "export": lambda: export_table(directory, out / "rows.parquet"),
        "summary": lambda: summary_table(directory),
        "pending": lambda: pending_steps(directory),
        "run": lambda: run_plan(directory),
        "compare": lambda: compare([directory, directory.parent / "other"]).text(),
        "report": lambda: write_report(directory),
        "leaderboard": lambda: leaderboard(directory.parent, lambda d: Store(d).check_frozen()).markdown(),
    }
    seldom = {"status": 0.5, "table": 0.5, "pending": 0.3, "run": 0.3, "summary": 0.25, "export": 0.1,
              "compare": 0.02, "leaderboard": 0.02, "report": 0.01}  # fmt: skip
    readers = {name: read for name, read in readers.items() if rng.random() < seldom.get(name, 1.0)}
    found = {}
    with nothing_is_trained() as asked:
        for name, read in readers.items():
            accepted, value = counted.tried(read)
            if accepted:
                found[name] = value
        if "run" in found:
            found["run"] = list(asked)
    return found


def same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Whether two tables are equal, NaN to NaN."""
    try:
        pd.testing.assert_frame_equal(a, b)
    except AssertionError:
        return False
    return True


# --- plans -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted_plans():
    with tally("plans") as found:
        yield found


@given(seeds, replacements)
@cases(30)
def test_plans(whole, sound, counted_plans, seed, replacement):
    rng = random.Random(seed)
    path = whole / "plan.json"
    with spoilt(path) as before:
        how = rng.choice(("json", "json", "json", "json", "bytes", "file", "order"))
        content = before
        if how == "file":
            spoil_file(path, rng)
            content = None
        elif how == "bytes":
            content = spoil_bytes(before, rng)
        elif how == "order":  # the same, written otherwise
            content = json.dumps(json.loads(before), indent=rng.choice((None, 3)), sort_keys=True).encode()
        else:
            plan = spoil_json(json.loads(before), rng, replacement)
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(plan, dict) and rng.random() < 0.9:
                    plan["sha256"] = digest(plan)
            content = json.dumps(plan).encode()
        if content is not None:
            path.write_bytes(content)
        found = read_all(whole, counted_plans, rng)
        if not found.keys() - {"leaderboard"}:
            return
        plan = json.loads(path.read_bytes())
        if plan == json.loads(before):
            assert same(found.get("table", sound["table"]), sound["table"])
            assert found.get("summary", sound["summary"]) == sound["summary"]
        if "plan" in found:
            assert found["plan"] == plan
            assert plan["sha256"] == digest(plan)
        if "table" in found:
            table = found["table"]
            assert set(table["title"]) <= {plan["title"]}
            assert set(table["budget"]) <= {plan["budget"]}
            assert set(table["run"]) <= {run["id"] for run in plan["runs"]}
        if "run" in found:
            # what has no result, with what is trained beside it, each once
            trained = [run_id for cohort in found["run"] for run_id in cohort]
            assert len(trained) == len(set(trained))
            lacking = {run["id"] for run in plan["runs"] if not (whole / "runs" / run["id"]).is_dir()}
            assert lacking <= {*trained}


# --- rows and records ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted_rows():
    with tally("rows") as found:
        yield found


def finished(directory: Path) -> list[str]:
    """Ids of the runs that have a result."""
    return sorted(path.name for path in (directory / "runs").iterdir() if (path / "done.json").is_file())


@given(seeds, replacements)
@cases(30)
def test_rows(whole, sound, counted_rows, seed, replacement):
    rng = random.Random(seed)
    run_id = rng.choice(finished(whole))
    path, done = whole / "runs" / run_id / "rows.jsonl", whole / "runs" / run_id / "done.json"
    with spoilt(path) as before, spoilt(done) as mark:
        how = rng.choice(("json", "json", "json", "bytes", "lines", "lines", "file"))
        if how == "file":
            spoil_file(path, rng)
        elif how == "bytes":
            path.write_bytes(spoil_bytes(before, rng))
        elif how == "lines":
            path.write_bytes(spoil_lines(before, rng))
        else:
            lines = before.decode().splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(spoil_json(json.loads(lines[at]), rng, replacement))
            path.write_text("\n".join(lines) + "\n")
        hashed = how != "lines" and path.is_file() and rng.random() < 0.5
        if hashed:
            record = {**json.loads(mark), "rows_sha256": harness.store._sha256(path)}
            done.write_text(json.dumps(record))
        elif rng.random() < 0.1:
            done.unlink()  # a torn last line is none then
        found = read_all(whole, counted_rows, rng)
        content = path.read_bytes() if path.is_file() else b""
        lines = [line for line in content.split(b"\n") if line.strip()]
        if done.is_file() and sorted({*lines}) == sorted(before.splitlines()) and "summary" in found:
            # other ends, lines twice or in another order mean the same
            told = Store(whole).changed()
            assert (found["summary"] == sound["summary"]) == (not told)
        if "rows" in found:
            table = found["rows"]
            if not content.endswith(b"\n"):
                lines = lines[:-1]
            told = {}
            for line in lines:
                row = {"code": "true", **json.loads(line.decode(errors="replace"))}
                told[row["checkpoint"], row["task"], row["code"]] = row
            own = table[table["run"] == run_id].to_dict("records")
            assert len(own) == len(told)
            for row in own:
                for name in ROW_COLUMNS:
                    said = told[row["checkpoint"], row["task"], row["code"]][name]
                    if isinstance(row[name], float):
                        said = math.nan if said is None else float(said)
                    assert row[name] == said or (said != said and math.isnan(row[name]))
        if "changed" in found and done.is_file() and not hashed:
            other = sorted(content.splitlines()) != sorted(before.splitlines())
            assert (run_id in found["changed"]) == other


@given(seeds, replacements)
@cases(20)
def test_records_of_runs(whole, counted_rows, seed, replacement):
    rng = random.Random(seed)
    run_id = rng.choice(finished(whole))
    path = whole / "runs" / run_id / "done.json"
    with spoilt(path) as before:
        how = rng.choice(("json", "json", "json", "bytes", "file"))
        if how == "file":
            spoil_file(path, rng)
        elif how == "bytes":
            path.write_bytes(spoil_bytes(before, rng))
        else:
            failed = {"status": "failed", "error": "a\nValueError: b"}
            record = json.loads(before) | rng.choice(({}, failed, {"status": "diverged"}))
            path.write_text(json.dumps(spoil_json(record, rng, replacement)))
        found = read_all(whole, counted_rows, rng)
        if "runs" in found:
            row = found["runs"].set_index("run").loc[run_id]
            record = json.loads(path.read_bytes()) if path.is_file() else {"status": "started"}
            assert row["status"] == record["status"]
            for name in ("wall_seconds", "updates", "parameters"):
                said = record.get(name)
                assert math.isnan(row[name]) if said is None else row[name] == float(said)


# --- checkpoints -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counted_checkpoints():
    with tally("checkpoints") as found:
        yield found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small network of each of two agents' checkpoints, with its lessons."""
    directory = tmp_path_factory.mktemp("checkpoints")
    worlds = TaskVectorEnv("Biped", num_envs=1)
    code = worlds.observation_slices.code
    for name, config in (("ppo", {"hidden": [4]}), ("sb3:ppo", {"hidden": [4]})):
        path = directory / name.replace(":", "-")
        make_learner(name, config, worlds, [0]).save(0, path)
        Lessons(("child",), (0.0,) * (code.stop - code.start)).write(path)
    return directory


OBSERVATIONS = np.random.default_rng(0).normal(size=(2, 300)).astype(np.float32)


@given(seeds, replacements)
@cases(60)
def test_checkpoints(checkpoint, counted_checkpoints, seed, replacement):
    rng = random.Random(seed)
    directory = checkpoint / rng.choice(("ppo", "ppo", "ppo", "sb3-ppo"))
    size = TaskVectorEnv("Biped", 1).observation_slices.size
    usual = load_policy(directory, "Biped")
    with contextlib.ExitStack() as stack:
        before = {name: stack.enter_context(spoilt(directory / name)) for name in (FACTS, TENSORS, LESSONS)}
        name = rng.choice((FACTS, FACTS, TENSORS, TENSORS, LESSONS))
        path = directory / name
        how = rng.choice(("json", "json", "json", "bytes", "bytes", "file"))
        if how == "file":
            spoil_file(path, rng)
        elif how == "bytes":
            path.write_bytes(spoil_bytes(before[name], rng))
        elif name == TENSORS:
            path.write_bytes(spoil_header(before[name], rng, replacement))
        else:
            path.write_text(json.dumps(spoil_json(json.loads(before[name]), rng, replacement)))
        if rng.random() < 0.8 and all((directory / n).is_file() for n in (FACTS, TENSORS)):
            seal_again(directory)
        accepted, policy = counted_checkpoints.tried(lambda: load_policy(directory, "Biped"))
        if not accepted:
            return
        assert policy.agent == usual.agent
        actions = policy.act(OBSERVATIONS[:, :size])
        assert actions.shape == (2, 6)
        now = {n: (directory / n).read_bytes() for n in (FACTS, TENSORS)}
        if now[TENSORS] == before[TENSORS] and (directory / LESSONS).is_file():
            assert policy.lessons.tasks == tuple(json.loads((directory / LESSONS).read_bytes())["tasks"])
            if policy.lessons == usual.lessons and json.loads(now[FACTS]) == json.loads(before[FACTS]):
                np.testing.assert_array_equal(actions, usual.act(OBSERVATIONS[:, :size]))


# --- bookmarks -------------------------------------------------------------------------------------


class Begun(BaseException):
    """What ends a training as soon as it goes on."""


@pytest.fixture(scope="module")
def counted_bookmarks():
    with tally("bookmarks") as found:
        yield found


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A plan whose first cohort was killed, with both of its bookmarks."""
    directory = planned(tmp_path_factory.mktemp("interrupted") / "plan")
    assert killed_after(directory, 3, save_every=0.0)
    assert len(list(directory.glob(f"resume/*/*/{FACTS}"))) == 2
    usual = []
    for kept in ((0, 1), (0,), (1,), ()):  # what is gone on with when none, one or both are lost
        copied = directory.parent / "copied"
        shutil.copytree(directory, copied)
        for place in {0, 1} - {*kept}:
            remove(next(copied.glob("resume/*")) / str(place))
        usual.append(gone_on(copied))
        remove(copied)
    return directory, usual


def gone_on(directory: Path) -> tuple[int, bytes]:
    """Steps and weights that the first cohort of a plan goes on with."""
    found = []

    def note(cohort, learner, worlds, progress):
        found.append((learner.steps, learner._parameters.flat.detach().numpy().tobytes()))
        raise Begun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.run._Cohort, "_train", note)
        with contextlib.suppress(Begun):
            run_plan(directory)
    return found[0]


@given(seeds, replacements)
@cases(15)
def test_bookmarks(interrupted, counted_bookmarks, tmp_path_factory, seed, replacement):
    rng = random.Random(seed)
    directory, usual = interrupted
    copied = tmp_path_factory.mktemp("bookmarks") / "plan"
    shutil.copytree(directory, copied)
    for place in rng.choice((("0",), ("1",), ("0", "1"))):
        directory = next(copied.glob("resume/*")) / place
        path = directory / rng.choice((FACTS, FACTS, TENSORS))
        how = rng.choice(("json", "json", "bytes", "file"))
        if how == "file":
            spoil_file(path, rng)
        elif how == "bytes":
            path.write_bytes(spoil_bytes(path.read_bytes(), rng))
        elif path.name == TENSORS:
            path.write_bytes(spoil_header(path.read_bytes(), rng, replacement))
        else:
            path.write_text(json.dumps(spoil_json(json.loads(path.read_bytes()), rng, replacement)))
    sealed_again = rng.random() < 0.7
    if sealed_again:
        for facts in copied.glob(f"resume/*/*/{FACTS}"):
            if facts.is_file() and (facts.parent / TENSORS).is_file():
                seal_again(facts.parent)
    accepted, found = counted_bookmarks.tried(lambda: gone_on(copied))
    assert accepted  # from a bookmark, or from nothing
    # what was spoilt is not gone on with, unless somebody has sealed it
    assert sealed_again or found in usual
    remove(copied.parent)


def seal_again(directory: Path) -> None:
    """Makes the seal of a checkpoint right for what is there now."""
    with contextlib.suppress(ValueError, RecursionError):
        facts = json.loads((directory / FACTS).read_bytes())
        if isinstance(facts, dict):
            told = sealed(facts, (directory / TENSORS).read_bytes())
            (directory / FACTS).write_text(json.dumps(told))


def spoil_header(content: bytes, rng: random.Random, replacement) -> bytes:
    """Other facts in the header of a file of safetensors, or a header of another length than it says."""
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.2:
        claimed = rng.choice((0, 1, length + 1, 2**31, 2**63, 2**64 - 1))
        return claimed.to_bytes(8, "little") + content[8:]
    try:
        told = json.dumps(spoil_json(header, rng, replacement)).encode()
    except (ValueError, RecursionError):
        told = b"{}"
    return len(told).to_bytes(8, "little") + told + body
