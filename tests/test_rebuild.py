"""What is published is rebuilt from the rows alone, to the same bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fuzzing import small_learner
from synthetic import ramp, write_planned

from harness import findings
from harness.cli import main
from harness.plan import Preset, make_plan, write_plan
from harness.rebuild import BEGIN, END, plans_below, rebuild, with_leaderboard

ROOT = Path(__file__).parents[1]
STORED = ROOT / "results" / "quickstart"


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_stored_result_is_rebuilt_to_the_same_bytes(tmp_path, capsys):
    """The published quick start, from its plan, rows and films, in a process of its own."""
    copy = tmp_path / "results" / "quickstart"
    shutil.copytree(STORED, copy)
    shutil.rmtree(copy / "report")
    settings = Preset(folds=(3,), arms=("scratch", "transfer"), seeds=1, budget=8000, pretrain_budget=8000,
                      checkpoints=4, first_episodes=100)  # fmt: skip
    write_plan(make_plan("Biped", settings, small_learner()), tmp_path / "results" / "untrained")
    page = tmp_path / "results" / "page.md"
    page.write_text(f"<!-- findings: overview quickstart -->\n{findings.END}\n")
    main(["rebuild", str(tmp_path / "results"), "--processes", "2"])
    assert "| speed-up, these tasks [95%] | **≥ 18.2 [10.8, 30.7]** |" in page.read_text()
    assert files(copy / "report") == files(STORED / "report")
    said = capsys.readouterr().out
    assert str(copy / "report" / "index.html") in said
    assert "untrained: nothing trained yet" in said


def test_a_plan_that_cannot_be_reported_fails_the_command_and_no_other(tmp_path, capsys):
    for name in ("edited", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text('{"runs": [], "sha256": "0"}')
    (tmp_path / "edited" / "plan.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        main(["rebuild", str(tmp_path), "--processes", "1"])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert "plan.json is no JSON" in captured.err.replace("\n", " ")
    assert "empty: nothing trained yet" in captured.out


def test_every_published_plan_is_found_and_none_of_hidden_directories(tmp_path):
    assert STORED in plans_below(ROOT / "results")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "plan.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no plan\.json"):
        plans_below(tmp_path)


def test_tables_between_their_marks_are_renewed(tmp_path):
    settings = Preset(folds=(3,), arms=("scratch", "transfer"), seeds=2, budget=8000, pretrain_budget=8000,
                      checkpoints=4, first_episodes=100)  # fmt: skip
    plan = make_plan("Biped", settings, small_learner())
    write_planned(tmp_path / "one", plan, {3: ramp(2.0, scratch_steps=5000)})
    page = tmp_path / "README.md"
    page.write_text(f"before\n\n{BEGIN}\nstale\n{END}\nafter\n")
    (tmp_path / "other.md").write_text("no table\n")
    found = rebuild(tmp_path)
    text = page.read_text()
    assert found.pages == [tmp_path / "one/report/index.html", page]
    assert text.startswith(f"before\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "stale" not in text
    assert "| one | Biped-v0 |" in text
    assert with_leaderboard(text, page) == text
    for wrong in (f"{END}\n{BEGIN}\n", f"{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"):
        with pytest.raises(ValueError, match=r"once$"):
            with_leaderboard(wrong, page)


def test_the_published_tables_are_those_of_the_rows():
    marked = [path for path in (ROOT / "results").rglob("*.md") if BEGIN in path.read_text()]
    assert ROOT / "results" / "baselines" / "README.md" in marked
    for path in marked:
        assert with_leaderboard(path.read_text(), path) == path.read_text(), path
