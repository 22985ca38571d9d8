"""What a report says, against counting; what it writes; what it does with text that bites."""

import csv
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
import synthetic_study
from implicitly.studies import OUTCOMES, Plan, StudyError, compare, export, report
from implicitly.studies.profiles import performance_profile, wilson
from implicitly.studies.reporting.cells import arrange
from implicitly.studies.reporting.describing import figures
from implicitly.studies.reporting.describing.profiles import reached
from implicitly.studies.reporting.headlines import headlines
from implicitly.studies.reporting.intervals import Resampling
from implicitly.studies.reporting.page import embedded
from implicitly.studies.reporting.styling import highlights
from implicitly.studies.reporting.tables import (
    Bounded,
    Column,
    Group,
    Table,
    comma_separated,
    latex,
    markdown,
)
from implicitly.studies.reporting.tabulating import tables

QUICK = Resampling(resamples=50)


@pytest.fixture(scope="module")
def rows():
    return synthetic_study.rows(problems=7, dtypes=("float64", "float32"), gradients=True)


@pytest.fixture(scope="module")
def cells(rows):
    return arrange(rows)


def table(cells, name):
    return next(made for made in tables(cells, highlights(cells), QUICK) if made.name == name)


def test_each_row_is_in_its_cell_whatever_the_order_of_rows(rows):
    shuffled = rows.sample(frac=1, random_state=0)
    for arranged in (arrange(rows), arrange(shuffled)):
        seen = 0
        for part in arranged.slices:
            for p, instance in enumerate(part.instances):
                for s, solver in enumerate(arranged.solvers):
                    row = arranged.frame.iloc[part.index[p, s]]
                    assert row["solver"] == solver.name
                    assert row["problem"] == arranged.problems[arranged.problem[instance]]
                    assert f"{row['tolerance']:g}" == part.tolerance
                    assert row["dtype"] == part.arithmetic
                    assert row["dimension"] == arranged.dimension[instance]
                    seen += 1
        assert seen == len(rows)


def test_slices_run_from_loose_to_tight_and_begin_with_float64(cells):
    assert [(part.arithmetic, part.tolerance) for part in cells.slices] == [
        (dtype, tolerance)
        for dtype in ("float64", "float32")
        for tolerance in ("0.0001", "1e-06", "1e-08")
    ]


def test_the_latest_of_several_rows_of_a_cell_counts(rows):
    later = rows.iloc[:1].assign(ended="2027", outcome="crashed", evaluations=np.nan)
    arranged = arrange(pd.concat([later, rows], ignore_index=True))
    assert arranged.superseded == 1
    here = arranged.frame[arranged.frame["ended"] == "2027"]
    assert here["outcome"].tolist() == ["crashed"]
    assert len(arranged.frame) == len(rows)


def test_options_sizes_and_modes_are_named_where_they_vary(rows):
    one = rows.iloc[[0]]
    several = pd.concat(
        [
            one.assign(problem_options=json.dumps({"c": 0.5}), dimension=10),
            one.assign(problem_options=json.dumps({"c": 0.5}), dimension=20),
            one.assign(gradient="Neumann(terms=5)", adjoint_solver="GMRES()"),
        ],
        ignore_index=True,
    )
    arranged = arrange(several)
    assert set(arranged.problems) == {
        "problem-00(c=0.5) n=10",
        "problem-00(c=0.5) n=20",
        "problem-00",
    }
    assert {solver.name for solver in arranged.solvers} == {
        "Solver0(memory=3) · Exact()",
        "Solver0(memory=3) · Neumann(terms=5) · adjoint GMRES()",
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda rows: rows.iloc[:0], "no cell of this study has ended"),
        (lambda rows: rows.drop(columns=["outcome", "jvps"]), "outcome, jvps"),
    ],
)
def test_what_cannot_be_reported_on_says_why(rows, wrong, message):
    with pytest.raises(StudyError, match=message):
        arrange(wrong(rows))


def test_work_counts_products_of_both_kinds(rows):
    counted = arrange(rows.assign(jvps=3.0, vjps=5.0))
    np.testing.assert_array_equal(counted.column("work"), counted.column("evaluations") + 8)
    np.testing.assert_array_equal(
        arrange(rows.assign(jvps=np.nan)).column("work"), arrange(rows).column("evaluations")
    )


def test_profiles_of_the_report_are_those_of_the_rows(rows, cells):
    here = rows[(rows["tolerance"] == 1e-8) & (rows["dtype"] == "float64")]
    costs = here.pivot(index="problem", columns="solver", values="evaluations")
    solved = here.pivot(index="problem", columns="solver", values="outcome") == "solved"
    names = [solver.name for solver in cells.solvers]
    expected = performance_profile(costs.where(solved, np.inf)[names].to_numpy())
    figure = next(each for each in figures(cells) if each.name == "performance")
    keys = {"cost": "evaluations", "tolerance": "1e-08", "arithmetic": "float64"}
    (panel,) = [panel for panel in figure.panels if panel.keys == keys]
    for curve in panel.curves:
        np.testing.assert_array_equal(curve.x[1:], expected[curve.solver].jumps)
        np.testing.assert_array_equal(curve.y[1:], expected[curve.solver].shares)


def test_reductions_are_read_from_each_cells_own_history(rows, cells):
    part = cells.tightest("float64")
    found = reached(cells, part, 1e-3)
    for p in range(len(part.instances)):
        for s in range(len(cells.solvers)):
            row = cells.frame.iloc[part.index[p, s]]
            low = row["history_residual"] <= 1e-3 * row["residual_start"]
            expected = row["history_evaluations"][low.argmax()] if low.any() else np.inf
            assert found[p, s] == expected


def test_the_summary_counts_what_the_rows_hold(rows, cells):
    summary = table(cells, "summary")
    group = next(each for each in summary.groups if each.keys["tolerance"] == "1e-06")
    here = rows[(rows["tolerance"] == 1e-6) & (rows["dtype"] == group.keys["arithmetic"])]
    for row in group.rows:
        mine = here[here["solver"] == row[0]]
        solved = mine[mine["outcome"] == "solved"]
        assert row[2] == f"{len(solved)}/{len(mine)}"
        assert row[3].value == pytest.approx(len(solved) / len(mine))
        assert row[4] == (mine["outcome"] == "false success").sum()
        work = solved["evaluations"] + solved["jvps"].fillna(0) + solved["vjps"].fillna(0)
        assert row[5].value == pytest.approx(work.median(), nan_ok=True)
        assert row[6].value == pytest.approx(solved["evaluations"].median(), nan_ok=True)
    assert [int(row[2].split("/")[0]) for row in group.rows] == sorted(
        (int(row[2].split("/")[0]) for row in group.rows), reverse=True
    )


def test_the_taxonomy_adds_up(rows, cells):
    taxonomy = table(cells, "outcomes")
    total = sum(np.array(group.rows[-1][1:]) for group in taxonomy.groups)
    assert total.tolist() == [int((rows["outcome"] == name).sum()) for name in OUTCOMES]


def test_sentences_say_what_counting_says():
    few = synthetic_study.rows(problems=3, solvers=2, tolerances=(1e-6,))
    few["outcome"] = ["solved", "solved", "solved", "false success", "error", "timed out"]
    few["evaluations"] = [5, 9, 8.0, np.nan, np.nan, np.nan]
    arranged = arrange(few)
    said = headlines(arranged, arranged.slices[0], QUICK)
    assert said[0].startswith(
        "At tolerance 1e-06 in float64, Solver0(memory=3) solves most: 2 of 3 problems (67%"
    )
    assert "1 problem of 3 is solved by nobody: problem-02." in said
    assert "Solver0(memory=3) needs the fewest evaluations most often: on 2 of 3 problems." in said
    assert any(
        "1 success that a solver claimed is denied" in sentence and "Solver1" in sentence
        for sentence in said
    )
    assert "Cells that came to no result: 1 timed out, 1 error." in said


def test_a_share_of_one_problem_has_no_interval_and_one_not_run_counts_as_not_solved():
    one = arrange(synthetic_study.rows(problems=1, solvers=2, tolerances=(1e-6,), seeds=(0, 1, 2)))
    said = headlines(one, one.slices[0], QUICK)[0]
    assert "interval" not in said
    assert "nan" not in said
    partly = synthetic_study.rows(problems=4, solvers=2, tolerances=(1e-6,))
    partly["outcome"] = "solved"
    partly = arrange(partly.drop(index=partly.index[[0, 3]]))
    low, high = wilson(3, 4)
    partly_said = headlines(partly, partly.slices[0], QUICK)[0]
    assert f"interval {100 * low:.0f} to {100 * high:.0f}%" in partly_said


def test_many_problems_are_shown_together_in_the_matrix():
    arranged = arrange(synthetic_study.rows(problems=90, solvers=2, tolerances=(1e-6,)))
    same_name = arranged.frame.assign(
        problem_options=[json.dumps({"k": name}) for name in arranged.frame["problem"]],
        problem=np.where(arranged.frame["dimension"] > 5, "large", "small"),
    )
    figure = figures(arrange(same_name))[0]
    assert figure.panels[0].rows == ("large", "small")
    solved = same_name[same_name["outcome"] == "solved"].groupby(["problem", "solver"]).size()
    run = same_name.groupby(["problem", "solver"]).size()
    assert figure.panels[0].texts[0][0] == (
        f"{solved['large', 'Solver0(memory=3)']}/{run['large', 'Solver0(memory=3)']}"
    )


# --- Tables --------------------------------------------------------------------------------------

AWKWARD = Table(
    "awkward",
    "100% & more_or_less",
    "",
    (Column("a|b", "code"), Column("share", "share")),
    (Group({"k": "v"}, (("x_1 | {y} \\ <b>", Bounded(0.5, 0.25, 1.0)), ("z", None))),),
)


def test_latex_escapes_what_latex_reads():
    text = latex(AWKWARD)
    assert r"\texttt{x\_1 \textbar{} \{y\} \textbackslash{} \textless{}b\textgreater{}}" in text
    assert r"100\% \& more\_or\_less" in text
    assert text.count("\\toprule") == text.count("\\bottomrule") == 1


def test_markdown_keeps_its_columns_whatever_a_cell_holds():
    lines = [line for line in markdown(AWKWARD).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}


def test_csv_holds_numbers_in_full_and_bounds_by_themselves():
    read = list(csv.DictReader(io.StringIO(comma_separated(AWKWARD))))
    assert read[0] == {
        "k": "v",
        "a|b": "x_1 | {y} \\ <b>",
        "share": "0.5",
        "share (low)": "0.25",
        "share (high)": "1.0",
    }
    assert read[1]["share"] == ""


# --- Files ---------------------------------------------------------------------------------------


def test_the_files_of_each_format_are_written(tmp_path):
    few = synthetic_study.rows(problems=2, solvers=2, tolerances=(1e-6,), history=4)
    files = report(few, tmp_path, resamples=20)
    assert files[0] == tmp_path / "report.html"
    assert {file.suffix for file in files} == {
        *(".html", ".png", ".svg", ".pdf"),
        *(".md", ".tex", ".csv"),
    }
    assert all(file.stat().st_size > 0 for file in files)
    assert len(files) == len(set(files)) == len(list(tmp_path.rglob("*.*")))
    again = report(few, tmp_path / "again", ("svg",), resamples=20)
    for file in again:
        assert file.read_bytes() == (tmp_path / "figures" / file.name).read_bytes()


def test_formats_that_do_not_exist_are_named(rows, tmp_path):
    with pytest.raises(StudyError, match="no format is called 'doc'"):
        report(rows, tmp_path, ("doc",))
    with pytest.raises(StudyError, match=r"\('html',\)"):
        report(rows, tmp_path, "html")


def test_texts_of_a_study_cannot_run_in_the_page(rows, tmp_path):
    bites = "</script><script>alert(1)</script><!-- \u2028"
    plan = Plan("s", ("a",), bites, {"machine": bites})
    (file,) = report(
        rows.assign(exception=bites, solver=bites), tmp_path, ("html",), plan=plan, title=bites
    )
    text = file.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["configuration"] == bites
    assert json.loads(embedded([bites])) == [bites]


def test_the_house_style_of_the_documentation_is_that_of_reports():
    from importlib import resources
    from pathlib import Path

    packaged = resources.files("implicitly.studies.reporting").joinpath("implicitly.mplstyle")
    documented = Path(__file__).parents[2] / "docs" / "figures" / "implicitly.mplstyle"
    assert documented.read_text() == packaged.read_text()


# --- Two studies ---------------------------------------------------------------------------------


def test_a_study_compared_with_itself_has_no_differences(rows):
    comparison = compare(rows, rows, resamples=20)
    assert comparison.both == comparison.same == len(rows)
    assert comparison.only == (0, 0)
    assert [made.name for made in comparison.tables] == ["solvers"]
    for row in comparison.solvers.groups[0].rows:
        assert row[5].value == pytest.approx(1)
    assert "Every cell of both ended alike" in str(comparison)


def test_a_comparison_counts_and_measures_what_changed(rows):
    first = rows[rows["dtype"] == "float64"].reset_index(drop=True)
    second = first.copy()
    mine = second["solver"] == "Solver0(memory=3)"
    second["evaluations"] = np.where(mine, 2, 1) * second["evaluations"]
    second["versions"] = json.dumps({"implicitly": "0.2.0", "torch": "2.13.0"})
    lost = second.index[mine & (second["outcome"] == "solved")][0]
    second.loc[lost, "outcome"] = "timed out"
    second["key"] = "new-" + second["key"]
    second = second.drop(index=second.index[-2:])
    comparison = compare(first, second, names=("before", "after"), resamples=100)
    assert (comparison.both, comparison.only, comparison.same) == (len(second), (2, 0), 0)
    line = next(row for row in comparison.solvers.groups[0].rows if row[0] == "Solver0(memory=3)")
    before = (first["solver"] == line[0]) & (first["outcome"] == "solved")
    assert line[1:5] == (mine.sum(), before.sum() - 1, 1, 0)
    assert line[5].value == pytest.approx(2)
    assert (line[5].low, line[5].high) == (pytest.approx(2), pytest.approx(2))
    (changed,) = comparison.changed.groups[0].rows
    assert changed[0] == line[0]
    assert changed[-2:] == ("solved", "timed out")
    assert comparison.versions.groups[0].rows == (("implicitly", "0.1.0", "0.2.0"),)
    assert "| `Solver0(memory=3)` |" in str(comparison)


def test_studies_without_a_cell_in_common_are_compared_too(rows):
    comparison = compare(rows, rows.assign(device="cuda"))
    assert (comparison.both, comparison.only) == (0, (len(rows), len(rows)))
    assert "0 cells ended in both" in str(comparison)
    with pytest.raises(StudyError, match="B has no rows"):
        compare(rows, rows.iloc[:0])


@pytest.mark.parametrize(
    ("least", "most", "labels"),
    [
        (11, 90, {"20", "50"}),
        (11, 35, {"15", "20", "25", "30"}),
        (0.002, 0.009, {"0.004", "0.006"}),
    ],
)
def test_a_logarithmic_axis_within_two_decades_has_numbers(least, most, labels):
    from implicitly.studies.reporting.drawing import _label_within_decades
    from matplotlib.figure import Figure

    paper = Figure()
    place = paper.subplots()
    place.plot([least, most], [1, 2])
    place.set_xscale("log")
    _label_within_decades(place.xaxis, np.array([least, most], dtype=float))
    paper.canvas.draw()
    assert labels <= {text.get_text() for text in place.get_xticklabels()}


def test_lines_that_coincide_have_widths_of_their_own(cells):
    from implicitly.studies.reporting.drawing import _look

    chosen = highlights(cells)
    looks = [_look(cells, solver, chosen) for solver in chosen]
    widths = [look["linewidth"] for look in looks]
    assert widths == sorted(set(widths), reverse=True)
    assert [look["zorder"] for look in looks] == sorted(look["zorder"] for look in looks)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_for_benchopt_are_the_points_of_every_curve(tmp_path, rows, ending):
    few = rows[rows["dtype"] == "float64"].copy()
    few.loc[few.index[0], ["outcome", "evaluations", "residual", "exception"]] = [
        *("crashed", np.nan, np.nan, "killed by signal 11"),
    ]
    file = export(few, tmp_path / f"curves.{ending}", layout="benchopt")
    points = pd.read_csv(file) if ending == "csv" else pd.read_parquet(file)
    # What benchopt's own reader and plots ask for.
    assert {"objective_name", "solver_name", "dataset_name", "idx_rep", "sampling_strategy"} <= set(
        points
    )
    keys = ["objective_name", "dataset_name", "solver_name", "idx_rep"]
    curves = points.groupby(keys)
    assert len(curves) == len(few)
    assert curves["stop_val"].apply(lambda stops: stops.is_monotonic_increasing).all()
    ends = points[points["objective_solved"].notna()]
    assert len(ends) == len(few)
    assert int(ends["objective_solved"].sum()) == int((few["outcome"] == "solved").sum())
    assert sorted(ends["objective_value"].dropna()) == pytest.approx(
        sorted(few["residual"].dropna())
    )
    assert ends["stop_val"].sum() == few["evaluations"].sum()


def test_an_unknown_layout_names_those_there_are(tmp_path, rows):
    with pytest.raises(StudyError, match="one of rows, benchopt, got 'excel'"):
        export(rows, tmp_path / "rows.csv", layout="excel")
