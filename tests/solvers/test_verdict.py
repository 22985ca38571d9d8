"""When a system ends, tested on numbers alone: no solver, no equation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from implicitly import Status
from implicitly.solvers.driving.progress import Progress, Rules, in_order, verdict

RULES = Rules(patience=5, patience_at_rounding=2, divergence=100.0)
SYSTEMS = 6
NORMS = arrays(
    np.float64,
    (3, SYSTEMS),
    elements=st.one_of(
        st.floats(1e-8, 1e8), st.sampled_from([0.0, np.inf, np.nan, 1.0, 0.999, 100.0, 1e-3])
    ),
)
THRESHOLDS = arrays(np.float64, SYSTEMS, elements=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))


def judged(norms, threshold, *, last=False, library=np, steps=(0, 4, 9)):
    """The verdicts at the last of three looks, the norms of which are the rows of `norms`."""
    norms, threshold = library.asarray(norms), library.asarray(threshold)
    progress = Progress.start(norms.shape[1])
    if library is torch:
        parts = (progress.best, progress.mark, progress.since, progress.reached)
        progress = Progress(*map(torch.from_numpy, parts))
    with np.errstate(all="ignore"):
        for norm, step in zip(norms, steps, strict=True):
            at_rounding = norm <= 1e-7
            progress = progress.after(norm, step, at_rounding)
        return np.asarray(
            verdict(
                RULES, norm, threshold, norms[0], progress, step, at_rounding=at_rounding, last=last
            )
        )


@given(NORMS, THRESHOLDS, st.permutations(range(SYSTEMS)))
def test_permuting_the_systems_permutes_the_verdicts(norms, threshold, order):
    order = np.array(order)
    expected = judged(norms, threshold)[order]
    assert judged(norms[:, order], threshold[order]).tolist() == expected.tolist()


@given(NORMS, THRESHOLDS, st.integers(-100, 100))
def test_scaling_norms_and_thresholds_together_changes_nothing(norms, threshold, power):
    # By a power of two, which rounds nothing; the rounding level is one of the relative norms.
    scale = 2.0**power
    progress = [Progress.start(SYSTEMS), Progress.start(SYSTEMS)]
    with np.errstate(all="ignore"):
        for step, norm in enumerate(norms):
            progress = [
                progress[0].after(norm, 3 * step),
                progress[1].after(scale * norm, 3 * step),
            ]
        plain = verdict(RULES, norm, threshold, norms[0], progress[0], 6)
        scaled = verdict(RULES, scale * norm, scale * threshold, scale * norms[0], progress[1], 6)
    assert plain.tolist() == scaled.tolist()


@given(NORMS, THRESHOLDS, st.integers(0, SYSTEMS - 1))
def test_a_nan_in_one_system_changes_no_other(norms, threshold, system):
    spoilt = norms.copy()
    spoilt[:, system] = np.nan
    others = np.arange(SYSTEMS) != system
    assert (judged(norms, threshold)[others] == judged(spoilt, threshold)[others]).all()
    assert judged(spoilt, threshold)[system] == Status.NON_FINITE


@given(NORMS, THRESHOLDS, st.booleans())
def test_tensors_get_the_verdicts_of_arrays(norms, threshold, last):
    expected = judged(norms, threshold, last=last)
    assert judged(norms, threshold, last=last, library=torch).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("norms", "options", "status"),
    [
        ([1.0, 0.5, 1e-3], {}, Status.CONVERGED),
        ([1.0, 0.5, 0.4], {}, Status.RUNNING),
        ([1.0, 0.5, 0.4], {"last": True}, Status.MAX_STEPS),
        ([1.0, 0.5, 1e-3], {"last": True}, Status.CONVERGED),
        # No progress since step 4, with a patience of five.
        ([1.0, 0.5, 0.4999], {}, Status.STALLED),
        ([1.0, 0.5, 101.0], {}, Status.DIVERGED),
        ([1.0, 0.5, np.inf], {}, Status.NON_FINITE),
        # After it reached the rounding level it is stalled, not diverged.
        ([1.0, 1e-8, 101.0], {}, Status.STALLED),
    ],
)
def test_each_end_has_its_reason(norms, options, status):
    found = judged(
        np.array(norms)[:, None], np.array([1e-3 if norms[1] > 1e-7 else 0.0]), **options
    )
    assert Status(int(found[0])) is status


def test_a_residual_that_meets_its_tolerance_outweighs_the_solver_s_own_verdict():
    progress = Progress.start(2).after(np.array([1.0, 1.0]), 0)
    codes = verdict(
        RULES, np.array([1e-4, 1.0]), np.full(2, 1e-3), np.ones(2), progress, 1,
        end_status=np.array([Status.LINEAR_SOLVE_FAILED, Status.LINEAR_SOLVE_FAILED]),
    )  # fmt: skip
    assert codes.tolist() == [Status.CONVERGED, Status.LINEAR_SOLVE_FAILED]


def test_many_small_decreases_count_as_one():
    progress = Progress.start(1)
    for step in range(8):
        progress = progress.after(np.array([0.9995**step]), step)
    # Two steps of 0.05 % make the 0.1 % that counts.
    assert progress.since.tolist() == [6]


def test_a_system_is_in_order_once_all_before_it_in_its_sequence_have_ended():
    ended = np.array([True, True, False, True, False, True, True, True])
    assert in_order(ended, 4).tolist() == [True, True, True, False, True, False, False, False]
