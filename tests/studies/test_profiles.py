"""Profile arithmetic against examples worked by hand, published properties and SciPy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from implicitly.studies.profiles import (
    bootstrap,
    cumulative_share,
    data_profile,
    evaluations_to_reach,
    group_exceptions,
    head_to_head,
    mean,
    median,
    outcome_counts,
    performance_profile,
    ratios,
    thin_trace,
    wilson,
    work_precision,
)

INF = np.inf

# Four problems, three solvers. Ratios by hand:
#   10 20 40   →  1  2  4
#    9  3  F   →  3  1  F
#    F  8  8   →  F  1  1
#    F  F  F   →  F  F  F
COSTS = np.array(((10.0, 20, 40), (9, 3, INF), (INF, 8, 8), (INF, INF, INF)))

costs = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 6)),
    elements=st.one_of(st.integers(1, 50).map(float), st.just(INF)),
)


def test_ratios_of_the_example_are_those_found_by_hand():
    expected = ((1, 2, 4), (3, 1, INF), (INF, 1, 1), (INF, INF, INF))
    np.testing.assert_array_equal(ratios(COSTS), expected)


def test_the_performance_profile_of_the_example_is_the_one_drawn_by_hand():
    at = np.array((1.0, 1.99, 2, 3, 4, 1e9))
    shares = [profile(at).tolist() for profile in performance_profile(COSTS)]
    assert shares == [
        [0.25, 0.25, 0.25, 0.5, 0.5, 0.5],
        [0.5, 0.5, 0.75, 0.75, 0.75, 0.75],
        [0.25, 0.25, 0.25, 0.25, 0.5, 0.5],
    ]


def test_a_profile_among_two_takes_the_best_of_the_two():
    first, third = performance_profile(COSTS, among=(0, 2))
    # Ratios 1 4, 1 F, F 1, F F.
    assert first.jumps.tolist() == [1.0]
    assert first.shares.tolist() == [0.5]
    assert third.jumps.tolist() == [1.0, 4.0]
    assert third.shares.tolist() == [0.25, 0.5]


def test_the_order_of_the_rest_can_change_when_the_best_is_taken_out():
    """As in Gould & Scott 2016: of `b` and `c`, which is higher depends on whether `a` takes part."""
    example = np.array(((1.0, 2.5, 2.2), (1, 2.5, 2.2), (5, 2, 4), (1, 3, INF)))
    _, b, c = performance_profile(example)
    assert float(c(2.3)) > float(b(2.3))
    b, c = performance_profile(example, among=(1, 2))
    assert float(b(1.2)) > float(c(1.2))


@given(costs)
def test_profiles_rise_from_shares_of_the_best_to_shares_of_the_solved(costs):
    profiles = performance_profile(costs)
    at = np.geomspace(1, 100, 50)
    for solver, profile in enumerate(profiles):
        shares = profile(at)
        assert (np.diff(shares) >= 0).all()
        assert float(profile(0.999)) == 0
        assert profile.limit == pytest.approx(np.isfinite(costs[:, solver]).mean())
        assert float(profile(1e300)) == profile.limit
    # On each problem that anybody solves somebody is the best.
    solvable = np.isfinite(costs).any(axis=1).mean()
    assert sum(float(profile(1)) for profile in profiles) >= solvable - 1e-12


@given(costs, st.floats(0.01, 100))
def test_profiles_do_not_depend_on_the_unit_of_cost_of_a_problem(costs, unit):
    scale = np.full((costs.shape[0], 1), 1.0)
    scale[0] = unit
    for before, after in zip(
        performance_profile(costs), performance_profile(scale * costs), strict=True
    ):
        np.testing.assert_allclose(after.jumps[-1:], before.jumps[-1:], rtol=1e-12)
        assert after.limit == before.limit


@given(costs)
def test_shares_agree_with_counting(costs):
    values = ratios(costs)
    for solver, profile in enumerate(performance_profile(costs)):
        for tau in (1.0, 1.5, 2.0, 10.0):
            assert float(profile(tau)) == pytest.approx((values[:, solver] <= tau).mean())


@given(costs, st.integers(2, 5))
def test_thinned_steps_are_never_above_and_end_alike(costs, most):
    at = np.geomspace(1, 60, 200)
    for profile in performance_profile(costs):
        thinned = profile.thinned(most)
        assert len(thinned.jumps) <= most
        assert thinned.limit == profile.limit
        assert (thinned(at) <= profile(at) + 1e-15).all()


def test_head_to_head_of_the_example_is_that_counted_by_hand():
    expected = ((0.5, 0.25, 0.5), (0.5, 0.75, 0.75), (0.25, 0.25, 0.5))
    np.testing.assert_array_equal(head_to_head(COSTS), expected)


@given(costs)
def test_head_to_head_is_the_profile_of_each_pair_at_one(costs):
    shares = head_to_head(costs)
    for a in range(costs.shape[1]):
        for b in range(costs.shape[1]):
            if a != b:
                first, second = performance_profile(costs, among=(a, b))
                assert shares[a, b] == pytest.approx(float(first(1)))
                assert shares[b, a] == pytest.approx(float(second(1)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.array((1.0, 2.0)), "shape"),
        (np.empty((0, 2)), "with a problem"),
        (np.array(((np.nan, 1.0),)), "NaN"),
        (np.array(((0.0, 1.0),)), "positive, got 0"),
    ],
)
def test_what_is_no_matrix_of_costs_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        performance_profile(wrong)


def test_the_data_profile_counts_budgets_of_n_plus_one_evaluations():
    evaluations = np.array(((6.0, 3), (22, INF), (INF, 8)))
    first, second = data_profile(evaluations, np.array((2, 10, 3)))
    assert first.jumps.tolist() == [2.0]
    assert first.shares.tolist() == [pytest.approx(2 / 3)]
    assert second.jumps.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="each of 3 problems"):
        data_profile(evaluations, np.array((2, 10)))


histories = st.lists(
    st.lists(st.floats(1e-12, 1e3), min_size=0, max_size=8).map(
        lambda entries: sorted(entries, reverse=True)
    ),
    min_size=1,
    max_size=8,
)


@given(histories, st.sampled_from((0.5, 1e-3, 1e-7)))
def test_the_first_entry_below_the_goal_is_found_in_every_history(histories, tau):
    start = np.array([history[0] if history else 1.0 for history in histories])
    found = evaluations_to_reach(
        np.concatenate([np.arange(len(history)) + 1.0 for history in histories]),
        np.concatenate([np.array(history) for history in histories]),
        np.array([len(history) for history in histories]),
        start,
        tau,
    )
    for history, first, needed in zip(histories, start, found, strict=True):
        reached = [k + 1 for k, entry in enumerate(history) if entry <= tau * first]
        assert needed == (reached[0] if reached else INF)


def test_histories_that_do_not_add_up_are_refused():
    entries = np.ones(3)
    with pytest.raises(ValueError, match="add up to 2"):
        evaluations_to_reach(entries, entries, np.array((2,)), np.ones(1), 0.1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        evaluations_to_reach(entries, entries, np.array((3,)), np.ones(1), 1.0)


# --- Bootstrap -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("name", ["mean", "median"])
def test_intervals_agree_with_those_of_scipy(method, name):
    values = np.random.default_rng(3).exponential(size=40)
    statistic = {"mean": mean, "median": median}[name](values[:, None])
    ours = bootstrap(statistic, 40, method=method, resamples=4000, seed=1)
    theirs = scipy.stats.bootstrap(
        (values,),
        {"mean": np.mean, "median": np.median}[name],
        n_resamples=4000,
        method={"percentile": "percentile", "bca": "BCa"}[method],
        rng=np.random.default_rng(2),
    )
    interval = theirs.confidence_interval
    # Two draws of 4000: a quantile at 2.5% is off by some percent of the interval's width.
    width = interval.high - interval.low
    assert ours.estimate[0] == pytest.approx({"mean": np.mean, "median": np.median}[name](values))
    assert ours.low[0] == pytest.approx(interval.low, abs=0.12 * width)
    assert ours.high[0] == pytest.approx(interval.high, abs=0.12 * width)


def test_ninety_five_intervals_in_a_hundred_hold_the_truth():
    generator = np.random.default_rng(0)
    held = 0
    for k in range(300):
        solved = (generator.random(40) < 0.7).astype(float)
        interval = bootstrap(mean(solved[:, None]), 40, resamples=400, seed=k)
        held += bool(interval.low[0] <= 0.7 <= interval.high[0])
    # Of 300, 95% with a standard deviation of 3.8; a discrete share covers a little less.
    assert 268 <= held <= 298


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random((20, 3))
    one, two = (bootstrap(median(values), 20, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.low, two.low)
    assert not np.array_equal(one.low, bootstrap(median(values), 20, seed=6).low)


def test_what_cannot_be_bounded_is_nan():
    assert np.isnan(bootstrap(mean(np.ones((1, 1))), 1).low[0])
    mostly_missing = np.array(((np.nan,), (np.nan,), (np.nan,), (2.0,)))
    interval = bootstrap(median(mostly_missing), 4)
    assert interval.estimate[0] == 2
    assert np.isnan(interval.low[0])


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 100, 1000])
def test_medians_of_many_values_are_those_of_the_repeated_ones(size):
    generator = np.random.default_rng(size)
    values = np.round(generator.normal(size=(size, 4)), 1)
    values[generator.random(values.shape) < 0.2] = np.nan
    values[generator.random(values.shape) < 0.1] = np.inf
    counts = generator.multinomial(size, np.full(size, 1 / size), size=20)
    medians = median(values)(counts.astype(float))
    for sample, times in enumerate(counts):
        for column in range(4):
            repeated = np.sort(np.repeat(values[:, column], times))
            repeated = repeated[~np.isnan(repeated)]
            n = len(repeated)
            expected = (repeated[(n - 1) // 2] + repeated[n // 2]) / 2 if n else np.nan
            np.testing.assert_array_equal(medians[sample, column], expected)


@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 23), (1, 23), (11, 23), (22, 23), (23, 23), (1, 1)]
)
def test_the_score_interval_is_that_of_scipy(successes, trials):
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_score_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 of 0"):
        wilson(0, 0)


def test_all_alike_gives_an_interval_without_width():
    interval = bootstrap(mean(np.ones((9, 1))), 9)
    assert (interval.low[0], interval.high[0]) == (1, 1)


@settings(max_examples=50)
@given(
    hnp.arrays(np.float64, (7, 2), elements=st.one_of(st.floats(0, 9), st.just(np.nan))),
    hnp.arrays(np.int64, (4, 7), elements=st.integers(0, 3)),
)
def test_weighted_means_and_medians_are_those_of_the_repeated_values(values, counts):
    means, medians = mean(values)(counts.astype(float)), median(values)(counts.astype(float))
    for sample, times in enumerate(counts):
        for column in range(2):
            repeated = np.repeat(values[:, column], times)
            repeated = repeated[~np.isnan(repeated)]
            expected = (repeated.mean(), np.median(repeated)) if len(repeated) else (np.nan,) * 2
            np.testing.assert_allclose(means[sample, column], expected[0], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(medians[sample, column], expected[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": 1.0}, "level"), ({"method": "basic"}, "basic"), ({"resamples": 0}, "resample")],
)
def test_options_of_the_bootstrap_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(mean(np.ones((3, 1))), 3, **options)


# --- Work and precision, taxonomy, traces --------------------------------------------------------


def test_work_precision_is_over_problems_that_were_solved_at_every_tolerance():
    costs = np.array((((4.0, 9.0),), ((6.0, 11.0),), ((100.0, 1000.0),)))
    errors = np.array((((1e-3, 1e-6),), ((3e-3, 3e-6),), ((1.0, 1.0),)))
    solved = np.array((((True, True),), ((True, True),), ((True, False),)))
    found = work_precision(costs, errors, solved)
    assert found.problems.tolist() == [2]
    assert found.costs.tolist() == [[5.0, 10.0]]
    np.testing.assert_allclose(found.errors, [[2e-3, 2e-6]])
    none = work_precision(costs, errors, np.zeros_like(solved))
    assert np.isnan(none.costs).all()
    with pytest.raises(ValueError, match="one shape"):
        work_precision(costs, errors[:2], solved)


def test_outcomes_are_counted_by_group():
    counts = outcome_counts(np.array((0, 2, 2, 1)), np.array((1, 0, 0, 1)), 3, 2)
    assert counts.tolist() == [[0, 0, 2], [1, 1, 0]]


def test_exceptions_are_one_if_only_numbers_differ():
    texts = ("E: at 0x7f21 got 3.5e-2", None, "T: other", "E: at 0x99ab got 17", "E: at no got 1")
    grouped = group_exceptions(texts, ("a", "b", "c", "d", "a"))
    assert [(raised.text, raised.count) for raised in grouped] == [
        ("E: at 0x7f21 got 3.5e-2", 2),
        ("T: other", 1),
        ("E: at no got 1", 1),
    ]
    assert grouped[0].owners == ("a", "d")


@given(st.lists(st.floats(0, 1e10), min_size=1, max_size=60), st.integers(2, 20))
def test_a_thinned_trace_keeps_its_ends_and_points_of_its_own(entries, most):
    residuals = np.sort(np.array(entries))[::-1]
    evaluations = np.arange(len(residuals)) + 1.0
    kept, values = thin_trace(evaluations, residuals, most)
    assert len(kept) <= max(most, 1)
    assert (kept[0], kept[-1]) == (evaluations[0], evaluations[-1])
    np.testing.assert_array_equal(values, residuals[kept.astype(int) - 1])


def test_cumulative_shares_count_ties_once():
    (only,) = cumulative_share(np.array(((2.0,), (2.0,), (3.0,))))
    assert only.jumps.tolist() == [2.0, 3.0]
    np.testing.assert_allclose(only.shares, (2 / 3, 1))
