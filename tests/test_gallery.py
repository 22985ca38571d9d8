"""Every script of the gallery runs, and meets what its page claims."""

import ast
import json
import math
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "gallery"
NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


@pytest.fixture(scope="module")
def builder():
    """The modules that build the gallery's pages."""
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "docs" / "gallery"))
        names = ("scripts", "notebook", "build")
        yield {name: __import__(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture
def printed(capsys, monkeypatch):
    """The lines that a script prints, and by the way: numbers are finite, a figure is drawn."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name):
        if "sklearn" in (FOLDER / name).read_text(encoding="utf-8"):
            pytest.importorskip("sklearn")
        figure = runpy.run_path(str(FOLDER / name))["main"]()
        lines = capsys.readouterr().out.splitlines()
        assert figure.axes
        pyplot.close(figure)
        found = [number for line in lines for number in numbers(line)]
        assert found
        assert all(map(math.isfinite, found))
        assert not re.search(r"\b(nan|inf)\b", " ".join(lines))
        return lines

    return run


def numbers(line):
    return [float(number.replace(",", "").replace("−", "-")) for number in NUMBER.findall(line)]


def test_every_script_is_tested():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [p.name for p in FOLDER.glob("*.py") if f'printed("{p.name}")' not in text] == []


def test_there_are_ten_scripts_of_at_most_sixty_lines(builder):
    lengths = {script.name: script.length for script in builder["scripts"].scripts()}
    assert len(lengths) >= 10
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_the_readme_lists_every_script():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in FOLDER.glob("*.py") if f"examples/gallery/{p.name}" not in readme] == []


def test_lines_that_draw_or_say_are_not_counted(builder):
    code = 'import math\n\n\ndef draw():\n    pass\n\n\n# note\ndef f():\n    """Doc."""\n    return 1\n'
    assert builder["scripts"].Script("name", "Title", "Text.", code).length == 2


def test_a_notebook_has_the_code_of_its_script(builder):
    for script in builder["scripts"].scripts():
        text = builder["notebook"].notebook(script, "1.0\n", b"\x89PNG")
        whole = json.loads(text)
        assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
        first, *cells = whole["cells"]
        assert first["cell_type"] == "markdown"
        assert "".join(first["source"]).startswith(f"# {script.title}")
        assert all(cell["cell_type"] == "code" for cell in cells)
        assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
        together = "\n".join("".join(cell["source"]) for cell in cells)
        original = ast.parse((FOLDER / f"{script.name}.py").read_text(encoding="utf-8"))
        original.body = original.body[1:]  # the docstring
        assert ast.dump(ast.parse(together)) == ast.dump(original)
        for cell in cells:
            ast.parse("".join(cell["source"]))  # a cell runs by itself


def test_a_notebook_is_valid_to_nbformat(builder):
    nbformat = pytest.importorskip("nbformat")
    for script in builder["scripts"].scripts():
        text = builder["notebook"].notebook(script, "1.0\n", b"\x89PNG")
        nbformat.validate(nbformat.reads(text, as_version=4))


def test_a_script_is_run_once_for_each_of_its_versions(builder, tmp_path, monkeypatch):
    build = builder["build"]
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "BUILD", tmp_path)
    path = tmp_path / "tiny.py"
    source = '"""Tiny.\n\nText.\n"""\n\nprint(1.5)\nopen("tiny.png", "wb").write(b"PNG")\n'
    path.write_text(source, encoding="utf-8")
    script = builder["scripts"].read(path)
    assert not build.is_built(script)
    assert build.build(script).startswith("tiny: ")
    assert build.is_built(script)
    page = (tmp_path / "tiny.md").read_text(encoding="utf-8")
    assert page.startswith("# Tiny\n\nText.\n\n[![Tiny](tiny.png)](tiny.png)")
    assert "```text\n1.5\n```" in page
    cells = json.loads((tmp_path / "tiny.ipynb").read_text(encoding="utf-8"))["cells"]
    assert cells[-1]["outputs"][0]["text"] == ["1.5\n"]

    path.write_text(source + "1 / 0\n", encoding="utf-8")
    assert not build.is_built(script)
    with pytest.raises(RuntimeError, match=r"tiny\.py failed:\n(.|\n)*ZeroDivisionError"):
        build.build(script)
    assert not build.is_built(script)


def test_a_script_without_a_text_is_an_error(builder, tmp_path):
    path = tmp_path / "bare.py"
    path.write_text('"""Only a title."""\n', encoding="utf-8")
    with pytest.raises(ValueError, match="a title, an empty line and a text"):
        builder["scripts"].read(path)


def test_the_power_flow_is_that_of_the_textbook_and_its_derivatives_are_right(printed):
    slack, voltages, textbook, sensitivity, forecast = printed("power_flow.py")
    # The textbook prints three digits.
    assert numbers(slack)[1] == pytest.approx(71.6, abs=0.06)
    for bus, (value, expected) in enumerate(
        zip(numbers(voltages)[2:], numbers(textbook), strict=True)
    ):
        assert value == pytest.approx(expected, abs=6e-4), bus + 4
    # Central differences of step 1e-5: h² of truncation, and 1e-16 / h of rounding.
    assert numbers(sensitivity)[1] < 1e-9
    first, second = numbers(forecast)[-2:]
    assert second < first / 5


@pytest.mark.long
def test_every_pose_is_reached_and_the_derivative_is_the_inverse_jacobian(printed):
    solved, same, determinants, _ = printed("kinematics.py")
    reached, of, _ = numbers(solved)
    assert reached == of == 4000
    assert numbers(same)[0] > 95
    assert numbers(determinants)[-1] < 1e-12


def test_derivatives_of_three_orders_give_the_moments_of_monte_carlo(printed):
    apart, first, third, sample, error = map(numbers, printed("chemistry.py"))
    assert apart[0] < 1e-9
    # The mean is within three standard errors, and the gradient alone is not.
    assert abs(third[0] - sample[0]) < 3 * error[0] + 1e-3
    assert abs(first[0] - sample[0]) > 3 * error[0]
    assert abs(third[1] - sample[1]) < abs(first[1] - sample[1])


def test_parameters_of_the_market_are_found_within_their_errors(printed):
    misfit, apart, _, error = map(numbers, printed("market.py"))
    # 180 prices and 8 parameters: the mean square is 172 / 180 with a deviation of 0.11.
    assert misfit[1] ** 2 == pytest.approx(172 / 180, abs=3 * 0.11)
    assert apart[0] < 1e-6
    # The largest of eight normal variables is rarely above 3.5.
    assert error[0] < 3.5


def test_preferences_are_found_within_their_errors(printed):
    gradient, fit, forecast, derivative = map(numbers, printed("matching.py"))
    assert gradient[0] < 1e-8
    assert fit[1] < 3.5
    # Fixed points are known to 1e-8, and differences divide by 2e-5.
    assert derivative[0] < 1e-4
    value, error, true = forecast
    assert abs(value - true) < 3.5 * error


@pytest.mark.long
def test_the_field_comes_back_and_its_gradient_is_right(printed):
    unknowns, gradient, fit, misfit, error = map(numbers, printed("conductivity.py"))
    assert unknowns[0] >= 10_000
    # Systems are solved to 1e-8.
    assert gradient[0] < 1e-6
    assert fit[-1] < fit[-2] / 1000
    assert misfit[0] == pytest.approx(1, abs=0.15)
    assert error[0] < 0.15


@pytest.mark.long
def test_the_equilibrium_carries_labels_to_the_end_of_a_chain(printed):
    equilibrium, convolutions = printed("graph.py")
    assert numbers(equilibrium)[0] > 0.99
    # Three classes; three edges of forty are seen.
    assert numbers(convolutions)[0] < 0.5


@pytest.mark.long
def test_digits_are_told_apart_at_equilibrium(printed):
    plain, unrolled, equilibrium, parameters, steps = printed("digits.py")
    for line in (plain, unrolled, equilibrium):
        assert numbers(line)[0] > 0.95
    assert numbers(parameters)[0] == 7466
    assert numbers(steps)[-1] > 90


@pytest.mark.long
def test_penalties_of_their_own_fit_the_folds_and_serve_new_people_no_worse(printed):
    noisy, alone, validated = map(numbers, printed("penalties.py"))
    assert validated[-1] < 0.8 * validated[-2]
    # The square root of 2 / 142 is the relative deviation of a mean of 142 squares.
    assert noisy[-1] < noisy[-2] * (1 + (2 / 142) ** 0.5)
    assert alone[-1] == pytest.approx(alone[-2], rel=0.05)


@pytest.mark.long
def test_the_rate_law_is_learnt_in_few_implicit_steps(printed):
    euler, learnt, steps, explicit = map(numbers, printed("stiff.py"))
    assert euler[0] < 0.02
    assert learnt[0] < 0.02
    assert steps[0] <= 10
    assert steps[1] == 1
    assert explicit[-1] > 1000


def test_volatilities_are_those_of_brentq_and_errors_those_of_rounding(printed):
    options, derivative, brentq, explained = map(numbers, printed("volatility.py"))
    assert options[0] == 10_000
    assert derivative[0] < 1e-7
    # Volatilities are asked for to 1e-8, and so is their derivative.
    assert brentq[-1] < 1e-7
    assert explained[0] == 100
