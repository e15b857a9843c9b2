"""Plans, rows, checkpoints and reports are data: reading a stranger's runs no code and leads nowhere."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, executable
from fuzzing import small_learner
from synthetic import TASKS, ramp, write_planned
from synthetic_plans import leave_one_out, matrix, planted, write_plan_and_rows

import harness.run
from baselines.checkpoint import FACTS, LESSONS, TENSORS, load_state
from baselines.registry import load_policy, make_learner
from harness import cli
from harness.bookmark import Bookmark
from harness.compare import leaderboard
from harness.lock import holder, locked
from harness.plan import PlanError, Preset, load_plan, make_plan
from harness.report import summary_table, write_report
from harness.shipping import Delivery, End, Receiver, belongings, network_files
from harness.status import status_of
from harness.store import Store, StoreError, digest
from harness.table import evaluation_table
from mtenvs.vector_env import TaskVectorEnv

ROOT = Path(__file__).parents[1]
OURS = [path for name in ("mtenvs", "baselines", "harness") for path in sorted((ROOT / name).rglob("*.py"))]

# --- no code in data -------------------------------------------------------------------------------

MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "code"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {
    ("torch", "load"), ("torch", "save"), ("torch", "jit"), ("np", "load"), ("numpy", "load"),
    ("pd", "read_pickle"), ("os", "system"), ("os", "popen"), ("model", "load"),
}  # fmt: skip


def dangerous(tree: ast.AST):
    """What of a module could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name) and function.id in CALLS:
                yield function.id
            if isinstance(function, ast.Attribute):
                of = function.value
                owner = ast.unparse(of).removeprefix("self.")
                if (owner.lstrip("_"), function.attr) in METHODS or "pickle" in function.attr:
                    yield f"{owner}.{function.attr}"
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle"):
                    yield str(keyword.arg)


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_what_a_file_holds(path):
    assert list(dangerous(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_what_is_dangerous_is_found():
    for line in (
        "import pickle", "from joblib import load", "eval(x)", "torch.load(f)", "self._model.load(f)",
        "np.load(f, allow_pickle=True)", "subprocess.run(x, shell=True)", "frame.to_pickle(f)",
    ):  # fmt: skip
        assert list(dangerous(ast.parse(line))), line


def test_modules_are_chosen_at_run_time_in_known_places_only():
    """There, their names were typed by the user or stand in our code: no file is asked."""
    found = {
        str(path.relative_to(ROOT)) for path in OURS if "import_module(" in path.read_text(encoding="utf-8")
    }
    # agents by name; families of their own package; a family function's module; MuJoCo's for OpenGL
    known = {"baselines/registry.py", "mtenvs/registry.py", "harness/family_code.py", "mtenvs/rendering.py"}
    assert found <= known


class Trap:
    """Whoever unpickles it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A sound store with a checkpoint, and what is in it."""
    directory = tmp_path_factory.mktemp("secure") / "experiment"
    settings = Preset(
        folds=(3,), arms=("scratch", "transfer"), seeds=1, budget=8000, pretrain_budget=8000, checkpoints=4,
        episodes=2, first_episodes=100,
    )  # fmt: skip
    plan = make_plan("Biped", settings, small_learner())
    write_planned(directory, plan, {3: ramp(2.0, scratch_steps=5000)})
    run_id = plan["runs"][0]["id"]
    worlds = TaskVectorEnv("Biped", 1)
    make_learner("ppo", {"hidden": [4]}, worlds, [0]).save(0, directory / "checkpoints" / run_id)
    return directory


@pytest.fixture
def copy(experiment, tmp_path):
    shutil.copytree(experiment, tmp_path / "experiment")
    return tmp_path / "experiment"


READERS = {
    "plan": load_plan,
    "status": status_of,
    "table": evaluation_table,
    "summary": summary_table,
    "report": write_report,
    "run": harness.run.run_plan,
    "policy": lambda d: load_policy(next((d / "checkpoints").iterdir()), "Biped"),
    "state": lambda d: load_state(next((d / "checkpoints").iterdir())),
}


@pytest.mark.parametrize("kind", ["pickle", "torch", "numpy", "header"])
@pytest.mark.parametrize("name", ["plan.json", "rows.jsonl", "done.json", FACTS, TENSORS, LESSONS])
def test_a_booby_trapped_file_is_refused_and_runs_nothing(copy, tmp_path, monkeypatch, name, kind):
    trap = Trap(tmp_path / "sprung")
    for path in copy.rglob(name):
        if kind == "pickle":
            path.write_bytes(pickle.dumps(trap))
        elif kind == "torch":
            torch.save({"parameters": trap}, path)
        elif kind == "numpy":
            with path.open("wb") as file:
                np.save(file, np.array([trap], object), allow_pickle=True)
        else:  # of a length that nobody has
            path.write_bytes((2**63).to_bytes(8, "little") + b'{"a":{"dtype":"F64","shape":[99999999999]}}')
    if name == LESSONS:
        (next((copy / "checkpoints").iterdir()) / LESSONS).write_bytes(pickle.dumps(trap))
    monkeypatch.setattr(harness.run, "_train_cohort", lambda *_, **__: True)
    refused = set()
    for reader, read in READERS.items():
        try:
            read(copy)
        except (ValueError, FileNotFoundError):
            refused.add(reader)
    expected = {
        "plan.json": {"plan", "status", "table", "summary", "report", "run"},
        "rows.jsonl": {"table", "summary", "report", "run"},
        "done.json": {"status", "table", "summary", "report", "run"},
        FACTS: {"policy", "state"},
        TENSORS: {"policy", "state"},
        LESSONS: {"policy"},
    }[name]
    assert refused == expected
    assert not trap.path.exists()
    pickle.loads(pickle.dumps(trap))  # it does work
    assert trap.path.exists()


# --- paths stay inside -----------------------------------------------------------------------------

OUTWARD = ["../out", "/tmp/out", "a/b", "a\\b", "C:\\x", "a\0b", "..", ".", "x" * 5000, "~/x", "a\nb"]


@pytest.mark.parametrize("name", OUTWARD, ids=lambda name: repr(name)[:20])
@pytest.mark.parametrize("place", ["id", "start", "cohort"])
def test_no_name_in_a_plan_leads_out_of_its_directory(copy, place, name):
    plan = json.loads((copy / "plan.json").read_text())
    if place == "cohort":
        plan["cohorts"][0][0] = name
    else:
        plan["runs"][-1][place] = name
    (copy / "plan.json").write_text(json.dumps({**plan, "sha256": digest(plan)}))
    before = sorted(path for path in copy.parent.rglob("*"))
    for read in (load_plan, Store, harness.run.run_plan, write_report):
        with pytest.raises((PlanError, StoreError)):
            read(copy)
    assert sorted(path for path in copy.parent.rglob("*")) == before


@pytest.fixture
def victim(tmp_path):
    """A directory of the user's beside the experiment, which nothing may touch."""
    place = tmp_path / "victim"
    (place / "0").mkdir(parents=True)
    for name in ("rows.jsonl", "precious.svg", "0/kept.txt", TENSORS):
        (place / name).write_text("precious")
    yield place
    assert {p.relative_to(place): p.read_text() for p in place.rglob("*") if p.is_file()} == {
        Path(name): "precious" for name in ("rows.jsonl", "precious.svg", "0/kept.txt", TENSORS)
    }


def linked(path: Path, to: Path) -> Path:
    """Puts a link in the place of whatever is there."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return path


def test_a_run_that_is_a_link_is_neither_emptied_nor_written_to(copy, victim):
    run_id = load_plan(copy)["runs"][0]["id"]
    row = json.loads((copy / "runs" / run_id / "rows.jsonl").read_text().splitlines()[0])
    linked(copy / "runs" / run_id, victim)
    store = Store(copy)
    for write in (
        lambda: store.begin(run_id),
        lambda: store.truncate(run_id, 0),
        lambda: store.append([row]),
        lambda: store.finish(run_id, {"status": "finished"}),
        lambda: store.discard(run_id),
    ):  # fmt: skip
        with pytest.raises(StoreError, match="is a symbolic link"):
            write()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.part", "done.json.tmp"])
def test_no_file_of_a_run_is_written_through_a_link(copy, tmp_path, name):
    run_id = load_plan(copy)["runs"][0]["id"]
    target = tmp_path / "target"
    target.write_text("precious")
    store = Store(copy)
    rows = (copy / "runs" / run_id / "rows.jsonl").read_text()
    store.discard(run_id)
    linked(copy / "runs" / run_id / name, target)
    for write in (
        lambda: store.append([json.loads(rows.splitlines()[0])]),
        lambda: store.truncate(run_id, 0),
        lambda: store.finish(run_id, {"status": "finished"}),
    ):
        try:
            write()
        except StoreError as error:
            assert "is a symbolic link" in str(error)  # noqa: PT017 # the others are free to succeed
    assert target.read_text() == "precious"


def test_all_of_runs_as_a_link_is_not_written_to_either(copy, victim):
    run_id = load_plan(copy)["runs"][0]["id"]
    linked(copy / "runs", victim)
    (victim / run_id).mkdir()
    with pytest.raises(StoreError, match="is a symbolic link"):
        Store(copy).begin(run_id)
    (victim / run_id).rmdir()


def test_a_directory_that_is_itself_reached_by_a_link_is_its_owners_choice(copy, tmp_path):
    (tmp_path / "here").symlink_to(copy)
    run_id = load_plan(copy)["runs"][0]["id"]
    store = Store(tmp_path / "here")
    store.discard(run_id)
    store.begin(run_id)
    assert store.status()[run_id] == "started"


@pytest.mark.parametrize("name", ["checkpoints/{}", "locks/{}", "locks", "checkpoints"])
def test_training_leaves_what_links_lead_to_alone(copy, victim, name):
    plan = load_plan(copy)
    run_id = plan["cohorts"][0][0]
    shutil.rmtree(copy / "runs")
    to = victim / "0/kept.txt" if name == "locks/{}" else victim
    linked(copy / name.format(run_id), to)
    cohort = harness.run._Cohort(
        copy, plan, Store(copy), [r for r in plan["runs"] if r["id"] == run_id], "ppo", harness.run.Where()
    )
    locks = name.startswith("locks")
    train = (
        (lambda: harness.run._train_cohort(copy, [run_id], "ppo", harness.run.Where()))
        if locks
        else (lambda: cohort.train(None))
    )
    with pytest.raises((StoreError, harness.run.TrainingError), match="is a symbolic link"):
        train()


def test_a_bookmark_that_is_a_link_is_not_written_to(copy, victim):
    store, run_id = Store(copy), load_plan(copy)["cohorts"][0][0]
    for place in ("resume", f"resume/{run_id}", f"resume/{run_id}/1"):
        shutil.rmtree(copy / "resume", ignore_errors=True)
        (copy / "resume").unlink(missing_ok=True)
        linked(copy / place, victim)
        bookmark = Bookmark(copy, store, [run_id], [run_id], {})
        with pytest.raises(StoreError, match="is a symbolic link"):
            bookmark.save({}, harness.run.Place())
        if place != f"resume/{run_id}/1":
            with pytest.raises(StoreError, match="is a symbolic link"):
                bookmark.remove()


def test_what_another_machine_sends_is_not_written_through_a_link(copy, victim):
    run_id = load_plan(copy)["runs"][0]["id"]
    row = (copy / "runs" / run_id / "rows.jsonl").read_bytes().splitlines(keepends=True)[0]
    rows = Delivery(rows={run_id: (0, row)})
    network = Delivery(checkpoints={run_id: {FACTS: b"{}"}})
    bookmark = Delivery(bookmark={FACTS: b'{"number": 1}', TENSORS: b""})
    receiver = Receiver(Store(copy), [run_id])
    for place, delivery in (
        (f"runs/{run_id}/rows.jsonl", rows),
        (f"runs/{run_id}/rows.part", rows),
        (f"runs/{run_id}", rows),
        ("runs", rows),
        (f"checkpoints/{run_id}.part", network),
        (f"checkpoints/{run_id}", network),
        ("checkpoints", network),
        (f"resume/{run_id}/1", bookmark),
        (f"resume/{run_id}", bookmark),
        (f"resume/{run_id}", Delivery(end=End(True))),
        ("resume", bookmark),
        ("resume", Delivery(end=End(True))),
    ):
        shutil.rmtree(copy / "resume", ignore_errors=True)
        (copy / "resume").unlink(missing_ok=True)
        file = place.endswith(("rows.jsonl", "rows.part"))
        link = linked(copy / place, victim / "rows.jsonl" if file else victim)
        with pytest.raises(StoreError, match="is a symbolic link"):
            receiver.take(delivery)
        if file:
            link.unlink()


def test_what_links_lead_to_is_not_sent_to_another_machine(copy, victim):
    run_id = load_plan(copy)["runs"][0]["id"]
    link = linked(copy / "checkpoints" / run_id / "more", victim / "precious.svg")
    assert b"precious" not in network_files(copy, run_id).values()
    link.unlink()
    for place, read in (
        (f"runs/{run_id}/rows.jsonl", belongings),
        (f"resume/{run_id}/0", belongings),
        (f"runs/{run_id}", belongings),
        (f"checkpoints/{run_id}", lambda directory, cohort: network_files(directory, *cohort)),
    ):
        linked(copy / place, victim / "rows.jsonl" if place.endswith("jsonl") else victim)
        with pytest.raises(StoreError, match="is a symbolic link"):
            read(copy, [run_id])


def test_a_pipe_in_the_place_of_rows_keeps_nobody_waiting(copy):
    run_id = load_plan(copy)["runs"][0]["id"]
    rows = copy / "runs" / run_id / "rows.jsonl"
    content = rows.read_bytes()
    rows.unlink()
    os.mkfifo(rows)
    assert belongings(copy, [run_id])[f"runs/{run_id}/rows.jsonl"] == b""
    with pytest.raises(StoreError, match="is no file"):
        Receiver(Store(copy), [run_id]).take(Delivery(rows={run_id: (0, content)}))


def test_a_pipe_in_the_place_of_a_lock_keeps_nobody_waiting(tmp_path):
    os.mkfifo(tmp_path / "lock")
    assert holder(tmp_path / "lock") is None
    (tmp_path / "directory").mkdir()
    assert holder(tmp_path / "directory") is None
    with locked(tmp_path / "real") as mine:
        assert mine
        assert "process" in str(holder(tmp_path / "real"))


def test_a_report_neither_clears_nor_shows_what_links_lead_to(copy, victim, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("precious")
    linked(copy / "videos" / "0-before.gif", secret)
    os.mkfifo(copy / "videos" / "1-before.gif")
    linked(copy / "report" / ".index.html.part", secret)
    page = write_report(copy).read_text()
    assert "cHJlY2lvdXM" not in page  # base64 of it
    assert secret.read_text() == "precious"
    for place in ("report/figures", "report"):
        linked(copy / place, victim)
        with pytest.raises(StoreError, match="is a symbolic link"):
            write_report(copy)


# --- text stays text -------------------------------------------------------------------------------

HOSTILE = (
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "<svg onload=\"document.title='pwned'\"><a href=\"javascript:document.title='pwned'\">x</a></svg>",
    "</title></style><script>document.title='pwned'</script>",
    "[click](javascript:alert(1)) | `code` $\\frac{$ & &lt;b&gt; ${7*7} {{7*7}}",
)


def hostile_plan(make):
    """A plan whose every name and title would like to be more than text."""
    text = json.dumps(make())
    for k, name in enumerate(TASKS):
        hostile = f"{k} {HOSTILE[k % len(HOSTILE)]}"
        for before in ("", "from="):
            text = text.replace(f'"{before}{name}"', json.dumps(before + hostile))
    plan = json.loads(text)
    learner = {
        "name": HOSTILE[0], "version": HOSTILE[1], "source": HOSTILE[2],
        "config": {"architecture": HOSTILE[3], HOSTILE[1]: HOSTILE[4], "hidden": [64, 64]},
        "changed": {HOSTILE[0]: HOSTILE[1]},
    }  # fmt: skip
    return plan | {
        "title": f"Biped: {HOSTILE[3]}",
        "preset": HOSTILE[0],
        "learner": plan["learner"] | learner,
        "switches": [HOSTILE[2]],
        "exclusion": {HOSTILE[0]: HOSTILE[1]},
        "conditioning": HOSTILE[1],
        "new_code": HOSTILE[2],
        "mtenvs": HOSTILE[0],
        "version": 0,
        "sha256": "",
    }


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Reports of two kinds of plans of hostile text, with a run that failed and one that nobody planned."""
    found = {}
    kinds = {"folds": lambda: leave_one_out(folds=(0, 2), seeds=2), "matrix": lambda: matrix(range(2))}
    for kind, make in kinds.items():
        directory = tmp_path_factory.mktemp("hostile") / kind
        plan = hostile_plan(make)
        failed = plan["runs"][-1]["id"]
        error = "Traceback\n" + HOSTILE[0] + "\x1b[31m" + HOSTILE[1]
        speeds = dict.fromkeys(plan["arms"], 1.5)
        write_plan_and_rows(directory, plan, planted(speeds), failed={failed: error})
        (directory / "runs" / "<img src=x onerror=alert(1)>").mkdir()
        (directory / "videos").mkdir()
        film = '0-"><img src=x onerror="document.title=\'pwned\'">.gif'
        (directory / "videos" / film).write_bytes(b"GIF89a")
        for done in directory.glob("runs/*/done.json"):
            told = {"processor": HOSTILE[0], "versions": {"numpy": HOSTILE[1]}}
            told |= {"backend": HOSTILE[0], "device": HOSTILE[1]}
            done.write_text(json.dumps(json.loads(done.read_text()) | told))
        found[kind] = write_report(directory)
    return found


@pytest.mark.parametrize("kind", ["folds", "matrix"])
def test_a_report_of_hostile_text_shows_it_and_runs_none(hostile, tmp_path, kind):
    if executable() is None:
        pytest.skip("no Chromium here")
    page = hostile[kind]
    browser = Browser(tmp_path)
    try:
        browser.open(page)
        assert browser.requests == [page.as_uri()]
        assert browser.complaints == []
        title = browser.run("document.title")
        assert title != "pwned"
        assert HOSTILE[3] in title
        browser.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
        shown = browser.run("document.body.innerText")
        for text in HOSTILE[:2]:
            assert text in shown
        # nothing of it became an element
        made = "img[onerror], svg[onload], [href^='javascript:']"
        assert browser.run(f'document.querySelectorAll("{made}").length') == 0
        assert browser.run("[...document.scripts].filter(s => s.textContent.includes('pwned')).length") == 0
        for figure in sorted((page.parent / "figures").glob("*.svg"))[:3]:
            browser.open(figure)
            assert browser.run("document.querySelectorAll('script, img, [onload], [onerror]').length") == 0
            assert browser.complaints == []
    finally:
        browser.close()


def test_markdown_and_the_terminal_get_text_too(hostile, capsys):
    directory = hostile["folds"].parents[2]
    text = leaderboard(directory).markdown()
    assert HOSTILE[0].split(">")[0][1:] in text
    assert "<script" not in text
    assert "<img" not in text
    assert "](javascript" not in text
    cli.say("\x1b[31mred\x07 \x9b1m")
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b"} & {*said}


@pytest.mark.parametrize("name", ['=LINK("x")', "+1", "-1", "@SUM(A1)", "a\tb", "a\nb", "\u202etxt"])
def test_no_name_is_a_formula_or_more_than_a_line(copy, name):
    plan = json.loads((copy / "plan.json").read_text())
    for place in ("title", "agent", "task"):
        changed = json.loads(json.dumps(plan))
        if place == "title":
            changed["title"] = name
        elif place == "agent":
            changed["learner"]["name"] = name
        else:
            changed["tasks"][0]["name"] = name
        (copy / "plan.json").write_text(json.dumps({**changed, "sha256": digest(changed)}))
        with pytest.raises(PlanError, match=r"begins like a formula|printable"):
            load_plan(copy)


# --- no file names code ----------------------------------------------------------------------------


def test_an_agent_that_a_file_names_is_not_imported(copy, tmp_path, monkeypatch, capsys):
    (tmp_path / "evil.py").write_text("open('sprung', 'w')\nclass Agent: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plan = json.loads((copy / "plan.json").read_text())
    plan["learner"]["name"] = "evil:Agent"
    plan["learner"]["config"]["architecture"] = "evil:Agent"
    (copy / "plan.json").write_text(json.dumps({**plan, "sha256": digest(plan)}))
    checkpoint = next((copy / "checkpoints").iterdir())
    facts = json.loads((checkpoint / FACTS).read_text())
    (checkpoint / FACTS).write_text(json.dumps({**facts, "learner": "evil:Agent"}))
    shutil.rmtree(next((copy / "runs").iterdir()))  # there is something to train
    policy = ["--policy", str(checkpoint)]
    for words, code in (
        (["run", str(copy)], 2),
        (["status", str(copy)], 0),
        (["report", str(copy)], 0),
        (["table", str(copy)], 0),
        (["leaderboard", str(copy)], 0),
        (["compare", str(copy), str(copy)], 2),
        (["video", "Biped", *policy], 2),
        (["record", "Biped", *policy], 2),
        (["view", "Biped", *policy], 2),
        (["replicate", str(copy), "--fold", "3"], 2),
        (["rebuild", str(copy), "--processes", "1"], 0),
        (["pack", str(copy)], 0),
        (["pack", str(copy), "--networks", "1"], 2),  # a network whose seal is wrong
    ):
        try:
            cli.main(words)
            ended = 0
        except SystemExit as stop:
            ended = stop.code
        assert ended == code, words
        assert "evil" not in sys.modules, words
        assert not (tmp_path / "sprung").exists()
    assert "is only run if you name it: add --agent evil:Agent" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match="is only run if you name it"):
        load_policy(checkpoint, "Biped")
    with pytest.raises(PlanError, match="is only run if you name it"):
        harness.run.estimate_cost(copy)
    assert "evil" not in sys.modules


def test_what_is_to_be_typed_is_quoted(copy):
    plan = json.loads((copy / "plan.json").read_text())
    plan["learner"]["name"] = "x:A; touch sprung"
    (copy / "plan.json").write_text(json.dumps({**plan, "sha256": digest(plan)}))
    assert harness.run.run_command(copy).endswith(" --agent 'x:A; touch sprung'")
    with pytest.raises(PlanError, match="add --agent 'x:A; touch sprung'"):
        harness.run.run_plan(copy)
