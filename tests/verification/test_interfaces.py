"""The ways to a verification: assertion, pytest, command line, exports, Hypothesis."""

import json
import sys
import xml.etree.ElementTree as ElementTree

import implicitly
import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st
from implicitly import ImplicitLayer, Stopping
from implicitly.cli.app import app
from implicitly.verification import (
    GradientError,
    Verdict,
    as_html,
    as_json,
    as_junit,
    assert_gradients,
    verify,
)
from implicitly.verification.strategies import SPECTRA, ContractiveMap, contractive_maps
from layers import draw, function, wanted, weight
from typer.testing import CliRunner

from .implicit_layers import tanh_layer


def wrong():
    return function(torch.sin, lambda x, g: 2 * g * x.cos())


def loose():
    W = weight(4)
    return tanh_layer(W, stopping=Stopping(rtol=1e-3))


# --- Assertion -------------------------------------------------------------------------------------


def test_an_assertion_returns_the_report_of_a_correct_layer():
    assert assert_gradients(torch.sin, wanted(3)).verdict is Verdict.CORRECT


def test_an_assertion_fails_with_the_report_in_its_message():
    with pytest.raises(GradientError, match=r"gradients are WRONG\nWRONG") as raised:
        assert_gradients(wrong(), wanted(3))
    assert isinstance(raised.value, AssertionError)
    assert raised.value.report.findings[0].cause == "a constant factor of 2"


def test_an_unconverged_layer_passes_only_where_it_is_accepted():
    with pytest.raises(GradientError, match="UNCONVERGED"):
        assert_gradients(loose(), wanted(3, 4))
    accept = (Verdict.CORRECT, Verdict.UNCONVERGED)
    assert assert_gradients(loose(), wanted(3, 4), accept=accept).verdict is Verdict.UNCONVERGED


def test_what_cannot_be_told_is_never_green():
    with pytest.raises(GradientError, match="UNRELIABLE"):
        assert_gradients(torch.relu, torch.zeros(3, dtype=torch.float64, requires_grad=True))
    with pytest.raises(ValueError, match="accept may contain CORRECT and UNCONVERGED"):
        assert_gradients(torch.sin, wanted(3), accept=[Verdict.UNRELIABLE])


# --- pytest ----------------------------------------------------------------------------------------

SUITE = """
import pytest, torch
from implicitly.verification import assert_gradients


class OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].detach().cos()


@pytest.fixture
def x():
    return torch.linspace(1, 2, 3, dtype=torch.float64).requires_grad_()


@pytest.mark.gradients
def test_right(x):
    return torch.sin, x


@pytest.mark.gradients
def test_right_to_first_order(x):
    return OnceOnly.apply, x


def test_asserted(x):
    assert_gradients(OnceOnly.apply, x)


@pytest.mark.gradients
def test_kink(x):
    return torch.relu, torch.zeros(3, dtype=torch.float64, requires_grad=True)


@pytest.mark.gradients
def test_returns_nothing():
    pass
"""


@pytest.mark.parametrize(
    ("profile", "failed"),
    [
        ("fast", ["test_kink", "test_returns_nothing"]),
        pytest.param("full", [
            "test_right_to_first_order", "test_asserted", "test_kink", "test_returns_nothing",
        ], marks=pytest.mark.long),
    ],
)  # fmt: skip
def test_marked_tests_are_verified_with_the_effort_of_the_profile(pytester, profile, failed):
    output = run_marked(pytester, SUITE, f"--grad-profile={profile}")
    lines = [line for line in output.splitlines() if line.startswith("FAILED")]
    assert [line.split("::")[1].split(" ")[0] for line in lines] == failed, output
    assert "must return (layer, inputs)" in output


def run_marked(pytester, suite, *options):
    """The output of pytest on a file of tests."""
    file = pytester.makepyfile(suite)
    # In a process of its own: it forgets what is imported inside, and PyTorch loads a module once.
    return pytester.runpytest_subprocess(
        "-q", "-p", "implicitly.verification.pytest_plugin", "-p", "no:cacheprovider",
        "--strict-markers", *options, file,
    ).stdout.str()  # fmt: skip


# --- Command ---------------------------------------------------------------------------------------

FACTORIES = """
import torch, implicitly

x = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
W = 0.5 * torch.eye(3, dtype=torch.float64)
f = lambda z, x: torch.tanh(z @ W.mT + x)


def right():
    return implicitly.ImplicitLayer(f), x


def wrong():
    return implicitly.ImplicitLayer(f, gradient=implicitly.JacobianFree()), x


def loose():
    return implicitly.ImplicitLayer(f, stopping=implicitly.Stopping(rtol=1e-2)), x


def given():
    layer = implicitly.ImplicitLayer(f)
    return (lambda x: layer(x)), x, lambda z, x: z - f(z, x)


def kink():
    return torch.relu, torch.zeros(2, dtype=torch.float64, requires_grad=True)


def hangs():
    def layer(x):
        while True:
            x = x + 0
    return layer, x


def nothing():
    return None
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "gradient_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "gradient_factories"
    sys.modules.pop("gradient_factories", None)


@pytest.mark.parametrize(
    ("name", "status"), [("right", 0), ("given", 0), ("wrong", 1), ("loose", 3), ("kink", 4)]
)
def test_the_command_tells_the_verdict_by_its_exit_status(factories, name, status):
    result = CliRunner().invoke(app, ["verify", f"{factories}:{name}"])
    assert result.exit_code == status, result.output
    assert result.output.split(":")[0] in {v.name for v in Verdict}


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["absent"], ["right", "--effort", "slow"]],
    ids=["no layer", "no such name", "no such effort"],
)
def test_a_wrong_call_of_the_command_exits_with_2(factories, arguments):
    name, *options = arguments
    result = CliRunner().invoke(app, ["verify", f"{factories}:{name}", *options])
    assert result.exit_code == 2


def test_an_unknown_factory_or_module_is_told_with_the_nearest_name(factories):
    result = CliRunner().invoke(app, ["verify", f"{factories}:rihgt"], env={"COLUMNS": "200"})
    assert "did you mean 'right'?" in result.output
    result = CliRunner().invoke(app, ["verify", "no_such_module:f"], env={"COLUMNS": "200"})
    assert "cannot import 'no_such_module'" in result.output


def test_the_command_stops_a_layer_that_hangs(factories):
    result = CliRunner().invoke(app, ["verify", f"{factories}:hangs", "--time-limit", "0.2"])
    assert result.exit_code == 4
    assert "the time limit of 0.2 s is used up" in result.output


def test_the_command_writes_reports(factories, tmp_path):
    paths = {kind: tmp_path / "out" / f"report.{kind}" for kind in ("json", "junit", "html")}
    options = [part for kind, path in paths.items() for part in (f"--{kind}", str(path))]
    CliRunner().invoke(app, ["verify", f"{factories}:wrong", *options])
    assert json.loads(paths["json"].read_text())["verdict"] == "WRONG"
    assert ElementTree.parse(paths["junit"]).getroot().get("failures") == "1"
    assert "WRONG" in paths["html"].read_text()


# --- Exports ---------------------------------------------------------------------------------------


def test_json_has_every_finding_and_its_evidence():
    report = verify(wrong(), wanted(3))
    content = json.loads(as_json(report))
    (finding,) = content["findings"]
    assert finding["verdict"] == "WRONG"
    assert finding["cause"] == "a constant factor of 2"
    assert {piece["check"] for piece in finding["evidence"]} == set(report.checks)


def test_a_report_without_findings_is_an_error_in_junit():
    def broken(x):
        raise ValueError("<no> & no")

    suite = ElementTree.fromstring(as_junit(verify(broken, wanted(3))))
    assert suite.get("errors") == "1"
    assert "<no> & no" in suite.find("testcase/error").get("message")


def test_html_escapes_what_layers_say():
    def broken(x):
        raise ValueError("<script>")

    assert "<script>" not in as_html(verify(broken, wanted(3)))


# --- Hypothesis ------------------------------------------------------------------------------------


@given(contractive_maps(max_contraction=0.8))
def test_a_drawn_map_has_the_contraction_that_it_says(f):
    assert torch.linalg.matrix_norm(f.W, 2) == pytest.approx(f.contraction, abs=1e-12)
    a, b = draw(f.batch, f.width, seed=1), draw(f.batch, f.width, seed=2)
    change = (f(a, f.x) - f(b, f.x)).norm()
    assert change <= f.contraction * (a - b).norm() * (1 + 1e-12) + 1e-15


@settings(max_examples=10)
@given(contractive_maps(max_contraction=0.8, max_batch=3, max_width=4))
def test_implicit_layers_of_drawn_maps_are_correct(f):
    W = f.W.requires_grad_()
    layer = ImplicitLayer(lambda z, x: f(z, x, W), solver=implicitly.Newton())
    assert_gradients(layer, f.x.requires_grad_())


def test_examples_shrink_to_one_unknown_without_contraction():
    simplest = find(contractive_maps(), lambda f: True)
    assert simplest == ContractiveMap(1, 1, 0.0, SPECTRA[0], torch.float64, 0)
    smallest = find(contractive_maps(), lambda f: f.width >= 3)
    assert (smallest.batch, smallest.width, smallest.contraction) == (1, 3, 0.0)


@given(st.sampled_from([-0.1, 1.0, 2.0]))
def test_an_expansive_map_is_refused(contraction):
    with pytest.raises(ValueError, match="max_contraction must be in"):
        contractive_maps(max_contraction=contraction)


# --- What verify takes, others take ----------------------------------------------------------------


def test_an_assertion_takes_what_verify_takes():
    import inspect

    verifying = set(inspect.signature(verify).parameters)
    assert verifying <= set(inspect.signature(assert_gradients).parameters)
    report = assert_gradients(torch.sin, wanted(3), tighten=lambda factor: torch.sin, time_limit=60)
    assert report.verdict is Verdict.CORRECT


MARKED = """
import pytest, torch
from hypothesis import given, settings, strategies as st


@settings(max_examples=3, database=None, deadline=None)
@pytest.mark.gradients
@given(st.integers(1, 3))
def test_each_example(n):
    return torch.relu if n == 2 else torch.sin, torch.zeros(n, dtype=torch.float64).requires_grad_()


@pytest.mark.gradients(seed=3, time_limit=60.0)
def test_dictionary():
    x = torch.ones(2, dtype=torch.float64).requires_grad_()
    return {"layer": torch.sin, "inputs": x, "tighten": lambda factor: torch.sin}


@pytest.mark.gradients(efort="full")
def test_unknown_option():
    return torch.sin, torch.ones(2).requires_grad_()
"""


def test_a_marked_test_may_draw_examples_and_return_a_dictionary(pytester):
    output = run_marked(pytester, MARKED)
    assert "2 failed, 1 passed" in output
    assert "FAILED" in output
    assert "test_each_example" in output
    assert "takes the options unconverged, seed, effort, time_limit" in output


def test_a_factory_may_be_in_a_file_and_one_that_raises_exits_with_2(tmp_path, monkeypatch):
    path = tmp_path / "my_factories.py"
    path.write_text(FACTORIES + "\n\ndef broken():\n    raise ValueError('no data')\n")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["verify", f"{path}:right"]).exit_code == 0
    broken = CliRunner().invoke(app, ["verify", f"{path}:broken"], env={"COLUMNS": "300"})
    assert broken.exit_code == 2
    assert "raised ValueError: no data" in broken.output
    sys.modules.pop("my_factories", None)


def test_the_page_has_a_legend_a_date_and_versions():
    page = as_html(verify(torch.sin, wanted(3)))
    for part in ("Legend", "prefers-color-scheme:dark", torch.__version__, "Python 3"):
        assert part in page


def test_the_text_has_one_short_line_of_what_was_not_exercised():
    lines = str(verify(torch.sin, wanted(3))).splitlines()
    left_out = [line for line in lines if line.startswith("not exercised")]
    assert len(left_out) == 1
    assert len(left_out[0]) < 160
