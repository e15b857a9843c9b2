"""The report in a real browser: it renders, asks for nothing, sorts, fits a phone, is read in the dark."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import Browser, executable
from synthetic import BUDGET, TASKS, ramp, write
from synthetic_plans import (
    GRID,
    SAC,
    SPEED_UPS,
    dose,
    joint,
    leave_one_out,
    matrix,
    planted,
    write_plan_and_rows,
)

from harness.report import analyse, sections_facts, summary_table, warnings, write_report
from harness.report.analysis import leak_checks
from harness.report.page import Cell, Section, table
from harness.report.page import page as whole_page
from harness.report.sections_arms import told_or_not
from harness.report.sections_costs import variance
from harness.report.sections_curves import survival
from harness.report.sections_joint import analyse_joint
from harness.report.words import arrived, p_value
from harness.statistics import logrank, minimum_detectable, one_sample, wilson

HOSTILE = '</script><script>window.stolen=1</script><img src=x onerror="window.stolen=1">'
PLANS = {
    "leave_one_out": lambda: leave_one_out(folds=(0, 2), seeds=2, finetunes=2, finetune_folds=(2,)),
    "dose": lambda: dose(["sources=1", "sources=7"], seeds=2, exploratory=True, arrivals="interpolated"),
    "matrix": lambda: matrix(range(3), seeds=2),
    "joint": lambda: joint(range(2), seeds=2, arrivals="interpolated"),
    "joint_only": lambda: joint(range(2), seeds=2, arms=("joint",), learner=SAC, conditioning="descriptor"),
}
FASTER = SPEED_UPS | {"sources=1": 1.3, "sources=7": 3.0} | {f"from={name}": 1.5 for name in TASKS}
WIDTHS = (1280, 390)
# a transparent dot
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report of every kind of plan; a task of the leave-one-out has a name that would run a script."""
    found = {}
    for kind, make in PLANS.items():
        directory = tmp_path_factory.mktemp("reports") / kind
        plan = make()
        if kind == "leave_one_out":
            plan = json.loads(json.dumps(plan).replace(f'"{TASKS[2]}"', json.dumps(HOSTILE)))
        write_plan_and_rows(directory, plan, planted(FASTER | {f"from={HOSTILE}": 1.5}))
        if kind == "leave_one_out":
            (directory / "videos").mkdir()
            (directory / "videos/2-before.gif").write_bytes(GIF)
        found[kind] = write_report(directory)
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if executable() is None:
        pytest.skip("no Chromium here: neither chromium, chromium-browser nor google-chrome is on the path")
    # a short path: the browser puts sockets there
    chromium = Browser(tmp_path_factory.mktemp("b"))
    yield chromium
    chromium.close()


@pytest.mark.parametrize("kind", PLANS)
def test_it_renders_everywhere_and_asks_for_nothing(pages, browser, kind):
    for width in WIDTHS:
        for dark in (False, True):
            browser.open(pages[kind], width, dark=dark)
            assert browser.complaints == []
            assert browser.requests == [pages[kind].as_uri()]
            for unfold in (False, True):
                open_all = f"d => {{ d.open = {str(unfold).lower()} }}"
                browser.run(f"document.querySelectorAll('details').forEach({open_all})")
                root = browser.run(
                    "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
                )
                assert root == [width, width]
                # what is wider scrolls in a box of its own; nothing is cut off
                assert browser.run(
                    "[...document.querySelectorAll('main *')].filter(e => !e.closest('.table, .drawing') "
                    "&& "
                    f"e.getBoundingClientRect().right > {width} + 0.5).map(e => e.outerHTML.slice(0, 80))"
                ) == []  # fmt: skip
            drawn = browser.run(
                "[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect()).map("
                "box => [box.width, box.height])"
            )
            assert drawn
            assert min(height for _, height in drawn) > 50
            # letters of 8 points in a drawing of 504 are at least 9 CSS pixels tall on a phone too
            assert min(w for w, _ in drawn) * 8 / 504 > 9


def test_what_there_is_to_scroll_shows_at_its_edge(pages, browser):
    browser.open(pages["leave_one_out"], 390)
    boxes = ".table, .drawing"
    wide = f"[...document.querySelectorAll('{boxes}')].filter(e => e.scrollWidth > e.clientWidth)"
    assert browser.run(f"{wide}.length") > 10
    assert browser.run(f"{wide}.every(e => getComputedStyle(e).backgroundImage.includes('gradient'))")
    # the figures' own ground would hide it
    ground = "figure svg > g > g:first-child > path"
    seen = f"[...document.querySelectorAll('{ground}')].map(e => getComputedStyle(e).fillOpacity)"
    assert set(browser.run(seen)) == {"0"}


def test_the_verdict_of_a_task_needs_no_scrolling(pages, browser):
    browser.open(pages["leave_one_out"], 1280)
    # one of the names is a script
    browser.run(
        f"document.querySelectorAll('tbody th').forEach(e => {{ e.textContent = '{max(TASKS, key=len)}' }})"
    )
    cells = (
        "[...document.querySelectorAll('#speed-up-per-task .table')].filter(e => !e.closest('details'))"
        ".map(box => [...box.querySelectorAll('thead th')].filter(th => th.getBoundingClientRect().right > "
        "box.getBoundingClientRect().right).map(th => th.textContent))"
    )
    hidden = browser.run(cells)
    assert len(hidden) == 2
    assert not {"verdict", "mark"} & set(hidden[0])
    assert not [name for name in hidden[1] if "arrived" in name]


def test_figures_and_tables_say_what_they_are_to_those_who_do_not_see_them(pages, browser):
    browser.open(pages["leave_one_out"])
    described = browser.run(
        "[...document.querySelectorAll('figure svg')].map(e => "
        "document.getElementById(e.getAttribute('aria-describedby')).textContent)"
    )
    assert min(map(len, described)) > 40
    assert len(set(described)) == len(described)
    assert browser.run("[...document.querySelectorAll('table')].every(e => e.caption.textContent)")
    links = browser.run("[...document.querySelectorAll('figcaption a')].map(a => a.href)")
    assert {f"file://{p}" for p in (pages["leave_one_out"].parent / "figures").iterdir()} == set(links)


def test_the_terminal_s_summary_is_of_the_plan_s_own_kind(pages):
    lines = {kind: summary_table(page.parents[1]).splitlines() for kind, page in pages.items()}
    # a row for every dose, with the mean that the report has
    doses = lines["dose"]
    assert [line.split()[0] for line in doses[-2:]] == ["sources=1", "sources=7"]
    analysis = analyse(pages["dose"].parents[1])
    means = [c.sets["all_folds"].log_ratio.exp().value for c in analysis.against_scratch]
    for line, mean in zip(doses[-2:], means, strict=True):
        assert f" {mean:.3g} [" in line
        assert line.endswith("2 of 2")
    # a row for every target, its best source before its worst, and no interval over targets
    targets = [re.split(r" {2,}", line) for line in lines["matrix"][-3:]]
    assert [row[0] for row in targets] == TASKS[:3]
    for target, best, most, worst, least in targets:
        assert {best, worst} == {*TASKS[:3]} - {target}
        assert float(most.split()[-3 if "[" in most else -1]) >= float(
            least.split()[-3 if "[" in least else -1]
        )
    assert lines["matrix"][2].startswith("negative transfer shown for 0 of 6 pairs")
    assert not any("over all folds" in line for line in lines["matrix"])
    # a row for every arm of a joint plan
    arms = [line.split()[0] for line in lines["joint"][-3:]]
    assert arms == ["separate", "joint", "joint-wide"]
    assert "lock-step 2/2" in lines["joint"][-3]
    assert re.search(
        r"joint +\d\.\d+ \[.*\] +0\.\d+ +0\.\d+ +all at one checkpoint 2/2", lines["joint"][-2]
    )


def test_contents_lead_to_every_section_and_no_id_stands_twice(pages, browser):
    for page in pages.values():
        browser.open(page)
        ids = browser.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(set(ids)) == len(ids)
        anchors = browser.run(
            "[...document.querySelectorAll('nav a, h2 a')].map(a => a.getAttribute('href'))"
        )
        sections = browser.run("[...document.querySelectorAll('main > section')].map(s => '#' + s.id)")
        assert anchors == sections * 2


def test_a_leave_one_out_has_all_sixteen_sections_in_order(pages, browser):
    browser.open(pages["leave_one_out"])
    numbers = browser.run("[...document.querySelectorAll('main h2 span')].map(s => Number(s.textContent))")
    assert numbers == list(range(1, 17))
    for kind in set(PLANS) - {"leave_one_out"}:
        assert not re.search(r"<h2><a [^>]*><span>", pages[kind].read_text())
    # it opens with the flow of runs
    assert browser.run("document.querySelector('main > section').id") == "flow-of-runs"


def test_names_of_tasks_are_text(pages, browser):
    browser.open(pages["leave_one_out"])
    assert browser.run("document.scripts.length") == 1
    assert browser.run("window.stolen") is None
    assert browser.run("document.querySelectorAll('img:not(.film img), [onerror]').length") == 0
    assert HOSTILE in browser.run("document.body.textContent")


def test_the_page_forbids_requests_and_scripts_that_were_smuggled_in(pages, browser):
    browser.open(pages["joint"])
    browser.run(
        "for (const [name, fill] of [['script', e => { e.textContent = 'window.stolen = 1' }], "
        "['img', e => { e.src = 'http://localhost:9/pixel' }]]) "
        "{ const e = document.createElement(name); fill(e); document.body.append(e); }"
    )
    assert browser.run("fetch('http://localhost:9/').then(() => 'loaded', () => 'refused')") == "refused"
    assert browser.run("window.stolen") is None
    # which also shows that complaints are heard
    violated = "\n".join(t for t in browser.complaints if "Content Security Policy" in t)
    assert {f"{what}-src" for what in ("script", "img", "default")} <= set(re.findall(r"\w+-src", violated))


def test_tables_sort_by_number_and_by_key_and_unknown_numbers_stay_last(browser, tmp_path):
    shown = {
        "e": ("∞", "inf"),
        "b": ("1,000", "1000"),
        "a": ("–", "nan"),
        "d": ("−2", "-2"),
        "c": ("30", "30"),
    }
    rows = [[name, Cell(text, float(value))] for name, (text, value) in shown.items()]
    html = table(
        ["name", "steps", "nothing"], [[*row, ""] for row in rows], "a table", ["sum", "1,028", ""]
    )
    path = tmp_path / "page.html"
    path.write_text(whole_page("sorting", [], [Section("Table", [html])]))
    browser.open(path)
    names = "[...document.querySelectorAll('tbody th')].map(e => e.textContent).join('')"
    sorts = "[...document.querySelectorAll('thead th')].map(e => e.getAttribute('aria-sort'))"
    assert browser.run(names) == "ebadc"
    assert browser.run(sorts) == ["none", "none"]  # an empty column is left out
    browser.run("document.querySelectorAll('thead button')[1].click()")
    assert browser.run(names) == "dcbea"
    assert browser.run(sorts) == ["none", "ascending"]
    browser.run("document.querySelectorAll('thead button')[1].focus()")
    browser.press("Enter")
    assert browser.run(names) == "ebcda"
    assert browser.run(sorts) == ["none", "descending"]
    browser.run("document.querySelectorAll('thead button')[0].focus()")
    browser.press(" ")
    assert browser.run(names) == "abcde"
    assert browser.run(sorts) == ["ascending", "none"]
    assert browser.run("document.querySelector('tfoot').textContent") == "sum1,028"
    assert browser.complaints == []


def test_every_sortable_column_of_a_report_sorts(pages, browser):
    browser.open(pages["leave_one_out"])
    assert browser.run("document.querySelectorAll('thead button').length") > 50
    # values that are numbers rise, and what is none comes after them
    wrong = browser.run(
        "[...document.querySelectorAll('thead button')].filter(button => { button.click(); "
        "const th = button.closest('th'), rows = [...th.closest('table').tBodies[0].rows]; "
        "const values = rows.map(r => r.cells[th.cellIndex].dataset.value).filter(v => v !== undefined); "
        "const known = values.filter(v => v !== '').map(Number); "
        "return values.indexOf('') !== -1 && values.indexOf('') < known.length "
        "|| known.some((v, i) => i && v < known[i - 1]); }).map(b => b.textContent)"
    )
    assert wrong == []
    assert browser.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(pages, browser, dark):
    browser.open(pages["leave_one_out"], dark=dark)

    def colour(selector: str, what: str) -> list[float]:
        value = browser.run(f"getComputedStyle(document.querySelector('{selector}')).{what}")
        return [int(c) / 255 for c in re.findall(r"\d+", value)[:3]]

    def luminance(colour: list[float]) -> float:
        # WCAG 2: relative luminance
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance(colour("body", "backgroundColor"))
    assert (paper < 0.1) == dark
    for selector in ("main p", "figcaption", "thead button", "nav a", ".absent", "summary"):
        ink = luminance(colour(selector, "color"))
        # WCAG 2 AA for text
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector
    # figures follow
    for part, expected in (("ground", "body::backgroundColor"), ("ink", "body::color")):
        drawn = luminance(colour(f"figure svg [style*=\\'fill:var(--figure-{part}\\']", "fill"))
        assert drawn == pytest.approx(luminance(colour(*expected.split("::"))), abs=1e-3)


def test_what_to_read_first_stands_before_the_numbers(pages):
    order = re.findall(r'<section id="([^"]*)"', pages["matrix"].read_text())
    assert order.index("read-this-first") < order.index("transfer-from-every-task-to-every-other")
    order = re.findall(r'<section id="([^"]*)"', pages["dose"].read_text())
    assert order.index("read-this-first") < order.index("speed-up-against-dose")


def test_joint_reports_have_curves_against_total_steps_and_shares_with_intervals(pages):
    folder = pages["joint"].parent
    curves = pd.read_csv(folder / "figures/learning_curves.csv")
    single = curves[(curves["run"] != "mean") & (curves["task"] == TASKS[1])]
    assert set(single["run"]) == {
        *(f"{arm}-{seed}" for arm in ("joint", "joint-wide", "separate-1") for seed in range(2))
    }
    # of two tasks, in lock-step and together
    assert single.groupby("arm")["steps"].max().to_dict() == dict.fromkeys(
        ("joint", "joint-wide", "separate"), 2 * GRID[-1]
    )
    means = curves[(curves["task"] == "mean of tasks") & (curves["steps"] == 2 * GRID[-1])]
    assert set(means["n"]) == {2}
    assert means["low"].notna().all()
    text = folder.joinpath("index.html").read_text()
    assert re.search(r"joint, all at one checkpoint: 2 of 2 \[0\.34, 1\.00\]", text)
    assert re.search(r"Permutation p = \d\.\d+, labels of whole networks", text)


def test_figures_of_doses_and_matrices_hold_ratios_with_limits_and_n(pages):
    for kind, name, task in (("dose", "dose", "task"), ("matrix", "transfer_matrix", "target")):
        data = pd.read_csv(pages[kind].parent / f"figures/{name}.csv", keep_default_na=False)
        analysis = analyse(pages[kind].parents[1])
        row = data.iloc[0]
        arm = row["arm"] if kind == "dose" else f"from={row['source']}"
        fold = next(f for f in analysis.comparisons["scratch", arm].folds if f.measures.task == row[task])
        expected = fold.log_ratio.exp()
        shown = row[["speed_up", "low", "high"]].astype(float).tolist()
        assert shown == pytest.approx([expected.value, expected.low, expected.high], rel=5e-6)
        assert row["n"] == "2+2"
        assert set(data["limit"]) <= {"", "at least", "at most", "unresolved"}
        assert f"{analysis.n}." in pages[kind].read_text()


def test_a_matrix_has_no_mean_of_its_baseline_alone(pages):
    curves = pd.read_csv(pages["matrix"].parent / "figures/learning_curves.csv")
    assert "mean of tasks" not in set(curves["task"])


def test_captions_and_data_say_n(pages):
    folder = pages["leave_one_out"].parent
    text = folder.joinpath("index.html").read_text()
    for name in ("levels", "told_or_not", "speed_up_by_threshold", "comparability", "distance"):
        assert "n" in pd.read_csv(folder / f"figures/{name}.csv"), name
        caption = re.search(rf'<figcaption id="{name}-caption">(.*?)</figcaption>', text)
        assert re.search(r"n = 2\+2|n, independent runs on each task: 2 of scratch", caption[1]), name
    for name in ("told_or_not", "speed_up_by_threshold", "distance"):
        assert "limit" in pd.read_csv(folder / f"figures/{name}.csv"), name


def test_films_are_shown_or_it_is_said_how_to_make_them(pages, browser):
    browser.open(pages["leave_one_out"])
    assert browser.run("[...document.querySelectorAll('.film img')].map(e => e.naturalWidth)") == [1]
    browser.open(pages["dose"])
    text = browser.run("document.querySelector('#videos-before-and-after').textContent")
    assert "mtenvs video Biped --task 0 --policy checkpoints/pretrain-0-sources=1-0" in text
    assert "--policy checkpoints/learn-0-sources=1-0 --out videos/0-after.mp4" in text


# --- without a browser -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["matrix", "joint"])
def test_reports_of_other_kinds_are_the_same_to_the_byte(pages, kind):
    folder = pages[kind].parent
    before = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.suffix for p in before} == {".html", ".svg", ".csv"}
    # figures of an earlier report do not stay, other files do
    (folder / "figures/old.svg").write_text("old")
    (folder / "figures/notes.txt").write_text("mine")
    write_report(folder.parent)
    assert {p.name for p in (folder / "figures").iterdir()} == {"notes.txt"} | {
        p.name for p in before if p.suffix != ".html"
    }
    shutil.rmtree(folder)
    write_report(folder.parent)
    assert {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_of_any_kind_reports_that_nothing_is_trained(tmp_path, kind):
    plan = PLANS[kind]()
    write_plan_and_rows(tmp_path, plan, skip=[run["id"] for run in plan["runs"]])
    text = write_report(tmp_path).read_text()
    assert "<em>incomplete</em>" in text
    assert f"Runs: {len(plan['runs'])} planned, 0 started" in text
    nothing = {
        "joint": "No speed-up can be given: no task is estimable.",
        "joint_only": "No score can be given: no run of joint is complete.",
    }
    nothing["leave_one_out"] = nothing["joint"]
    assert nothing.get(kind, "No run is complete yet.") in text


def test_what_a_small_plan_does_not_have_is_said_in_its_section(tmp_path):
    write(tmp_path, {0: ramp(2.0), 1: ramp(3.0, seed=1)}, seeds=2)
    text = write_report(tmp_path).read_text()
    for sentence in (
        "The arm blind, which is never told its task, was not planned.",
        "Joint training was not planned here; <code>mtenvs joint Biped</code>",
        "Every pretraining was fine-tuned once",
        "No control arm was planned.",
        "The plan does not say how the hyperparameters were found.",
        "The plan holds no hashes of models and goals to prove it by.",
        "The plan holds no distances between tasks.",
        "No film lies in",
    ):
        assert sentence in text, sentence


def test_controls_on_one_fold_are_compared_there_and_miss_nowhere(pages):
    analysis = analyse(pages["leave_one_out"].parents[1])
    assert analysis.marks == []
    assert list(analysis.comparisons) == [
        *(("scratch", arm) for arm in list(SPEED_UPS)[1:7]),
        ("blind", "transfer"),
        ("single_source", "transfer"),
    ]
    folds = {arm: [f.measures.fold for f in c.folds] for (_, arm), c in analysis.comparisons.items()}
    assert folds["ceiling"] == [0]
    assert folds["transfer"] == [0, 2]
    # two pretrainings with two fine-tunings each are two clusters
    curves = analysis.curves[2, "transfer"]
    assert (curves.count, len(curves.runs)) == (2, 4)
    ratio = analysis.comparisons["blind", "transfer"].sets["all_folds"].log_ratio.exp()
    assert ratio.low < FASTER["transfer"] / FASTER["blind"] < ratio.high


def test_leaks_are_found_again():
    plan = leave_one_out(folds=(0, 2), seeds=1)
    checks = leak_checks(plan)
    assert [(c.task, c.sources, c.holds) for c in checks] == [(TASKS[0], 7, True), (TASKS[2], 7, True)]
    leaks = plan["leaks"]
    twin = leaks | {"models": leaks["models"] | {TASKS[5]: leaks["models"][TASKS[2]]}}
    assert [(c.holds, c.same) for c in leak_checks(plan | {"leaks": twin})] == [
        (True, ()),
        (False, (TASKS[5],)),
    ]
    close = leaks | {"min_distance": checks[0].distance + 0.01}
    assert not leak_checks(plan | {"leaks": close})[0].holds
    # trained on the held-out task itself, which the arm ceiling alone may be
    runs = [r | {"tasks": [*r["tasks"], 2]} if r["id"] == "pretrain-2-blind-0" else r for r in plan["runs"]]
    assert leak_checks(plan | {"runs": runs})[1].same == (TASKS[2],)
    with pytest.raises(ValueError, match=f"lack task '{TASKS[4]}'"):
        leak_checks(
            plan | {"leaks": leaks | {"goals": {k: v for k, v in leaks["goals"].items() if k != TASKS[4]}}}
        )


def test_several_fine_tunings_are_no_more_pretrainings(tmp_path):
    def score(run, task, steps, rng):
        fails = (run["arm"], run["fold"]) == ("transfer", 2)
        return np.zeros(len(steps)) if fails else planted()(run, task, steps, rng)

    arms = ("scratch", "transfer")
    plan = leave_one_out(folds=(0, 2), seeds=2, arms=arms, finetunes=3, finetune_folds=(2,))
    analysis = analyse(write_plan_and_rows(tmp_path, plan, score, competence={"transfer": 0.3}))
    low, high = wilson(0.5, 4)
    text = f"50% of 4 pretrainings [{low:.2f}, {high:.2f}] (2/8 runs)"
    assert arrived(analysis.folds, 1, 0) == text
    assert arrived(analysis.folds[:1], 1, 0).startswith("2/2 [")
    section = survival(analysis)
    rows = section.exhibits[0].data
    start = rows[(rows["steps"] == 0) & (rows["task"] == TASKS[2])]
    assert start["at_risk"].tolist() == start["n"].tolist() == [2, 2]
    p = logrank(*(f[[0, 1] if len(f) == 2 else [0, 3], 0] for f in analysis.folds[1].measures.arrivals),
                BUDGET, BUDGET)  # fmt: skip
    assert p_value(p) in section.parts[-1]
    assert "the first fine-tuning only" in section.parts[1]


def test_an_incompetent_arm_is_not_hidden_by_the_others(tmp_path):
    plan = leave_one_out(folds=(0,), seeds=1, arms=("scratch", "transfer", "blind", "ceiling"))
    competence = {"blind": 0.2, "transfer": 0.3, "ceiling": 0.9}
    found = warnings(analyse(write_plan_and_rows(tmp_path, plan, competence=competence)))
    found = [w for w in found if "hand-over" in w]
    assert [re.search(r"of (\w+) score (\S+)", w).groups() for w in found] == [
        ("transfer", "0.30"),
        ("blind", "0.20"),
    ]


def test_what_a_joint_plan_does_not_show_is_said(tmp_path):
    def score(run, task, steps, rng):
        arm = run["arm"]
        if task == 2 and arm != "joint-wide":  # reached by wide networks only
            return np.zeros(len(steps))
        if task == 1 and arm == "joint" and run["seed"] == 0:  # learned by some networks only
            return np.zeros(len(steps))
        if task == 0 and arm == "joint":  # there at once
            return np.where(steps > 0, 1.0, 0.0) + 0.01 * rng.standard_normal(len(steps))
        return planted()(run, task, steps, rng)

    page = write_report(write_plan_and_rows(tmp_path, joint(range(3), seeds=3), score))
    text = re.sub(r"<[^>]*>", " ", page.read_text())
    for sentence in (
        f"{TASKS[1]}: mixed outcomes. From θ = 0.10 on some runs of joint arrive",
        f"{TASKS[0]}: many joint runs arrive by the first checkpoint",
        f"{TASKS[2]}: no run of either arm reaches θ = 0.10 to 0.80",
        f"mean of 2 of 3 tasks, without {TASKS[2]}",
        "mean of 3 of 3 tasks",
        "3 sets of separate networks",
        "Nothing is pretrained in this plan.",
        "so no task is held out",
        "a film of nominal after learning it",
        "3 per task of separate networks, and per joint arm",
        "(no interval: zero variance)",
    ):
        assert sentence in text, sentence
    assert re.search(r"without short-torso +at least [\d.]+×", text)
    assert "Checked again" not in text
    assert "over all source tasks" not in text
    analysis = analyse(tmp_path)
    result = analyse_joint(analysis)
    assert result.limit == "at least"


def test_joint_networks_alone_are_reported_by_their_score(pages):
    directory = pages["joint_only"].parents[1]
    text = " ".join(re.sub(r"<[^>]*>", " ", pages["joint_only"].read_text()).split())
    result = analyse_joint(analyse(directory))
    means = result.arms[0].final_scores.mean(axis=1)
    e = one_sample(means)
    shown = f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
    for sentence in (
        f"one network scores {shown} on average over 2 tasks, where 0 is a random policy",
        "2 networks of joint",
        "joint, all at one checkpoint: 2 of 2 [0.34, 1.00]",
        "(task, θ) pairs reached by joint within the budget: 100%",
        "No separate networks were planned, so nothing says whether",
        f"mean of tasks joint {shown} {means.min():.2f}",
        "With one arm there is nothing to improve on.",
        "2 per joint arm",
        f"checkpoints of joint networks {len(GRID)}, at 0,",
    ):
        assert sentence in text, sentence
    for absent in ("lock-step", "ρ̄", "separate / joint"):
        assert absent not in text, absent
    assert summary_table(directory).splitlines()[-1].split() == [
        *("mean", "of", "tasks", "joint", *shown.split(), "all", "at", "one", "checkpoint", "2/2,"),
        *("each", "at", "some", "time", "2/2"),
    ]
    table = pages["joint"].read_text()
    assert "final score g [95% t interval]" in table
    assert "separate / joint" in table


@pytest.mark.parametrize("arms", [("joint", "joint-wide"), ("separate", "joint")])
def test_a_joint_plan_may_lack_some_of_its_arms(tmp_path, arms):
    directory = write_plan_and_rows(tmp_path, joint(range(2), seeds=2, arms=arms))
    text = write_report(directory).read_text()
    assert ("Final score of joint-wide: " in text) == ("joint-wide" in arms)
    assert ("No separate networks were planned" in text) == ("separate" not in arms)
    assert {line.split()[0] for line in summary_table(directory).splitlines()[-2:]} & {"joint", "mean"}


def test_a_joint_network_that_diverged_is_warned_of(tmp_path):
    def score(run, task, steps, rng):
        g = planted()(run, task, steps, rng)
        return np.where(np.arange(len(g)) < 9, g, np.nan) if run["seed"] == 1 else g

    analysis = analyse(write_plan_and_rows(tmp_path, joint(range(2), 3, ("joint",)), score))
    assert any(w.startswith("1 of 3 networks of joint diverged.") for w in warnings(analysis))
    assert "Diverged: joint-1." in write_report(tmp_path).read_text()


def test_the_agent_is_described_and_what_is_not_as_usual_stands_under_the_title(tmp_path):
    unusual = {"switches": ["freeze_trunk", "new_of_later"], "new_code": "mean"}
    plan = leave_one_out(folds=(0,), seeds=2, arms=("scratch", "transfer"), learner=SAC, **unusual)
    page = write_report(write_plan_and_rows(tmp_path, plan)).read_text()
    head = re.sub(r"<[^>]*>", " ", re.search("<header>(.*?)</header>", page)[1])
    assert "Agent sb3:sac, architecture film." in head
    assert "Not the usual experiment: of a network that is handed on only the last layers learn" in head
    assert "(freeze_trunk); new_of_later; a network that is handed on is told the mean" in head
    assert "mean of 1 of 1 tasks; freeze_trunk, new_of_later, new_code=mean</p>" in page
    counted = re.search('<section id="what-is-counted">(.*?)</section>', page)[1]
    text = " ".join(re.sub(r"<[^>]*>", " ", counted).split())
    for sentence in (
        "agent sb3:sac, version 2",
        "architecture film",
        "trained one run at a time",
        "parameters of one network 12,345",
        "from a zoo of &lt;agents&gt;",
        "told of a new task the mean of its sources",
        "handed on of a network that is handed on only the last layers learn, the log standard deviation",
    ):
        assert sentence in text, sentence
    assert "what telling it the task&#x27;s own code would be worth is not seen here" in page
    assert "Not the usual experiment" in summary_table(tmp_path)


def test_plans_of_before_agents_were_described_are_reported_as_usual(pages):
    page = pages["leave_one_out"].read_text()
    assert '<p class="note">Agent ppo.</p></header>' in page
    assert "Not the usual experiment" not in page
    for name in ("architecture", "trained", "default hyperparameters", "handed on"):
        assert f'<th scope="row">{name}</th>' not in page, name


def test_what_arms_have_of_their_own_and_how_many_runs_train_at_once_is_said(tmp_path):
    learner = SAC | {"many_runs": True}
    plan = joint(range(2), 2, learner=learner, cohort_runs=7)
    for run in plan["runs"]:
        if run["arm"] == "joint-wide":
            run["config"] = SAC["config"] | {"hidden": [99, 99]}
    text = write_report(write_plan_and_rows(tmp_path, plan)).read_text()
    assert "joint-wide has instead: &quot;hidden&quot;: [99, 99]." in text
    assert "up to 7 runs at once, as one batch" in text
    assert "12,345, but for joint-wide" in text
    assert "the same in all arms" not in text


def test_failed_runs_are_named_with_the_last_line_of_their_error(tmp_path, browser):
    plan = leave_one_out(folds=(0,), seeds=5, arms=("scratch", "transfer"))
    ids = [run["id"] for run in plan["runs"] if run["phase"] == "learn"]
    errors = dict.fromkeys(
        ids[:8], f"Traceback (most recent call last):\n  x\nValueError: \ud800\x1b{HOSTILE}\n\n"
    )
    errors[ids[1]], errors[ids[2]] = "", "one sentence" * 100
    page = write_report(write_plan_and_rows(tmp_path, plan, failed=errors))
    browser.open(page, 390)
    assert browser.run("window.stolen") is None
    assert browser.run("document.documentElement.scrollWidth") == 390
    lines = browser.run("[...document.querySelectorAll('#flow-of-runs li')].map(e => e.textContent)")
    assert lines[0] == f"{ids[0]}: ValueError: {HOSTILE}"
    assert lines[1] == f"{ids[1]}: no error was stored"
    assert lines[2].endswith("one sentence …")
    assert len(lines[2]) < 300
    assert lines[6:] == ["and 2 more"]
    assert "<em>incomplete</em>" in page.read_text()


@pytest.mark.parametrize("kind", PLANS)
def test_a_plan_of_any_kind_reports_that_everything_failed(tmp_path, kind):
    plan = PLANS[kind]()
    failed = {run["id"]: "agent my:Agent ended the process that trained it" for run in plan["runs"]}
    text = write_report(write_plan_and_rows(tmp_path, plan, planted(FASTER), failed=failed)).read_text()
    assert "<em>incomplete</em>" in text
    assert text.count("agent my:Agent ended the process that trained it") == min(6, len(failed))
    assert summary_table(tmp_path)


def test_a_matrix_says_what_it_cannot_show_and_checks_every_pair(pages):
    text = pages["matrix"].read_text()
    assert "is shown for no pair. With 2+2 runs and 6 tests, adjusted after Holm, the permutation" in text
    assert "400,000 steps over 1 source task," in text
    plan = json.loads((pages["matrix"].parents[1] / "plan.json").read_text())
    assert [(c.task, c.sources) for c in leak_checks(plan)] == [(name, 2) for name in TASKS[:3]]


def test_one_large_film_hides_no_other_and_films_stand_in_order(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(sections_facts, "LARGEST_FILMS", 100)
    (tmp_path / "videos").mkdir()
    for name, size in (
        ("10-before", 1),
        ("2-after", 2),
        ("2-before", 3),
        ("0-after", 999),
        ("0-before", 4),
    ):
        (tmp_path / f"videos/{name}.gif").write_bytes(GIF[:1] * size)
    text = "".join(sections_facts.videos(analyse(pages["dose"].parents[1]), tmp_path).parts)
    assert re.findall(r"(?<=<span>videos/)\d+-\w+\.gif", text) == [
        "0-before.gif",
        "2-before.gif",
        "2-after.gif",
        "10-before.gif",
    ]
    assert "Too large for this page, in videos/: 0-after.gif." in text


def test_detectable_effects_are_from_the_runs_that_there_are(tmp_path):
    plan = leave_one_out(folds=(0,), seeds=10, arms=("scratch", "transfer"))
    skip = [f"learn-0-scratch-{seed}-0" for seed in range(2, 10)]
    analysis = analyse(write_plan_and_rows(tmp_path, plan, skip=skip))
    data = variance(analysis).exhibits[0].data.set_index(["task", "clusters_per_arm"])
    assert data.loc[(TASKS[0], 10), "from_clusters"] == "2+10"
    expected = minimum_detectable(analysis.folds[0].log_ratio, clusters=10).ratio
    assert data.loc[(TASKS[0], 10), "detectable_speed_up"] == pytest.approx(expected)


def test_codes_are_compared_within_networks(pages):
    analysis = analyse(pages["leave_one_out"].parents[1])
    rows = analysis.evaluations
    hand_over = rows[(rows["phase"] == "pretrain") & (rows["arm"] == "transfer")].drop_duplicates("run")
    names = {task["number"]: task["name"] for task in analysis.plan["tasks"]}
    told = hand_over.assign(task=hand_over["fold"].map(names))
    codes = [told.assign(code=code, score=g) for code, g in (("true", 0.6), ("mean", 0.35), ("wrong", 0.1))]
    section = told_or_not(dataclasses.replace(analysis, evaluations=pd.concat(codes, ignore_index=True)))
    text = "".join(part for part in section.parts if isinstance(part, str))
    assert text.count("+0.25") == 3  # two folds and their mean
    assert text.count("+0.50") == 3
    assert {"true", "mean", "wrong"} <= set(section.exhibits[0].data["arm"])
