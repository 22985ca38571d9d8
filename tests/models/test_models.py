"""Models as wholes: causality, equilibrium and its unrolled network, memory, generation, sizes, errors."""

import ast
import copy
from pathlib import Path

import implicitly
import pytest
import torch
from implicitly import (
    JacobianFree,
    Phantom,
    Stopping,
)
from implicitly.models import (
    DEQTransformer,
    DEQTrellisNet,
    Equilibrium,
    Stacked,
    Transformer,
    TransformerOptions,
    TrellisNet,
    TrellisNetOptions,
    WeightTied,
    count_parameters,
)
from implicitly.models.configurations import (
    TRANSFORMER_COPY_MEMORY,
    TRANSFORMER_WIKITEXT103,
    TRELLISNET_PTB,
    TRELLISNET_WIKITEXT103,
)
from implicitly.models.vocabulary import AdaptiveVocabulary

from .small import MAKERS, TIGHT, VOCABULARY, make, tokens, transformer, trellisnet

# --- Equilibrium --------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
def test_the_unrolled_network_approaches_the_equilibrium_and_its_gradient(maker):
    model = make(maker)
    given, targets = tokens(), tokens(seed=2)

    def loss_and_gradient(depth):
        model.zero_grad()
        loss, output = model.loss(given, targets, depth=depth)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        return output.states.detach(), gradient

    states, gradient = loss_and_gradient(None)
    # TrellisNet's Jacobian is nearly nilpotent: its powers vanish faster than any rate.
    depths = [20, 40, 80, 400] if maker is transformer else [4, 8, 16, 100]
    errors = []
    for depth in depths:
        z, g = loss_and_gradient(depth)
        errors.append(
            [(z - states).norm() / states.norm(), (g - gradient).norm() / gradient.norm()]
        )
    errors = torch.tensor(errors)
    assert (errors[1] < 0.5 * errors[0]).all()
    assert (errors[2] < 0.5 * errors[1]).all()
    # Both solves to 1e-11, times a condition of I − J of at most a hundred.
    assert (errors[3] < 1e-8).all()


def test_a_stack_of_two_equilibria_is_one_wider_equilibrium():
    """Theorem 2: `z = [z₁; z₂]` with `f(z) = [f₁(z₁; x); f₂(z₂; z₁)]`."""
    import implicitly

    torch.manual_seed(0)
    first, second = (make(transformer).cells[0] for _ in range(2))
    torch.nn.init.normal_(second.out.bias)
    x = torch.randn(2, 6, 36, dtype=torch.float64, requires_grad=True)
    lift = torch.randn(36, 12, dtype=torch.float64)
    none = x.new_zeros(2, 0, 12), x.new_zeros(2, 0, 36)

    def cell(part, z, U):
        weights = part.weights()
        return part.map(z, weights, part.inputs(weights, part.masks(U), U, *none))

    options = {
        "stopping": TIGHT.stopping,
        "gradient": TIGHT.gradient,
        "batch_dims": 2,
        "causal": True,
    }
    zero = x.new_zeros(2, 6, 12)
    one = implicitly.fixed_point(lambda z, x: cell(first, z, x), zero, x, **options).value
    two = implicitly.fixed_point(
        lambda z, U: cell(second, z, U), zero, one @ lift.mT, **options
    ).value
    weight = torch.randn_like(two)
    (stacked,) = torch.autograd.grad((two * weight).sum(), x)

    def wide(z, x):
        z1, z2 = z.split(12, dim=2)
        return torch.cat((cell(first, z1, x), cell(second, z2, z1 @ lift.mT)), dim=2)

    z = implicitly.fixed_point(wide, x.new_zeros(2, 6, 24), x, **options).value
    (joined,) = torch.autograd.grad((z[..., 12:] * weight).sum(), x)
    torch.testing.assert_close(z, torch.cat((one, two), dim=2), rtol=0, atol=1e-8)
    torch.testing.assert_close(joined, stacked, rtol=0, atol=1e-7)


@pytest.mark.parametrize("maker", MAKERS)
def test_gradients_of_all_parameters_are_those_of_differences(maker):
    model = make(maker)
    given, targets = tokens(2, 4), tokens(2, 4, seed=2)
    loss, _ = model.loss(given, targets)
    loss.backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                parameter += step * direction
                ends.append(model.loss(given, targets)[0])
                parameter -= step * direction
        slope = (ends[0] - ends[1]) / 2e-5
        # Solves to 1e-11 over a step of 1e-5, and its square.
        torch.testing.assert_close(
            (parameter.grad * direction).sum(),
            slope,
            rtol=1e-5,
            atol=1e-6,
            msg=lambda m, name=name: f"{name}: {m}",
        )


@pytest.mark.parametrize("gradient", [JacobianFree(), Phantom(steps=3)])
def test_any_gradient_mode_may_be_chosen(gradient):
    model = make(transformer, Equilibrium(gradient=gradient))
    model.loss(tokens(), tokens(seed=2))[0].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- Masks and weights --------------------------------------------------------------------------


@pytest.mark.parametrize("maker", MAKERS)
def test_masks_are_drawn_once_and_shared_with_the_adjoint(maker):
    rates = (
        {"dropout": 0.1, "attention_dropout": 0.1}
        if maker is transformer
        else {
            "hidden_dropout": 0.3,
            "input_dropout": 0.2,
            "weight_dropout": 0.3,
            "embedding_dropout": 0.1,
        }
    )
    model = make(maker, **rates).train()
    given, targets = tokens(), tokens(seed=2)
    table = model.vocabulary.table
    torch.manual_seed(5)
    loss, output = model.loss(given, targets)
    loss.backward()
    solved = output.pieces[0]
    assert torch.equal(solved.function(solved.value), solved.function(solved.value))
    direction = torch.randn_like(table)
    ends = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            table += step * direction
            torch.manual_seed(5)
            ends.append(model.loss(given, targets)[0])
            table -= step * direction
    torch.testing.assert_close(
        (table.grad * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_dropout_acts_in_training_and_not_in_evaluation(rate):
    model = make(transformer, WeightTied(3), **{rate: 0.5})
    assert not torch.equal(model(tokens()).hidden, model(tokens()).hidden)
    model.eval()
    assert torch.equal(model(tokens()).hidden, model(tokens()).hidden)


@pytest.mark.parametrize("maker", MAKERS)
def test_normalised_weights_are_not_stale_after_copies_steps_and_loads(maker):
    model = make(maker)
    before = model(tokens()).states.detach()
    twin = copy.deepcopy(model)
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.5)
    assert torch.equal(model(tokens()).states, before)
    assert not torch.allclose(twin(tokens()).states, before)
    twin.load_state_dict(state)
    assert torch.equal(twin(tokens()).states, before)
    unrolled = make(maker, WeightTied(400))
    unrolled.load_state_dict(state)
    torch.testing.assert_close(unrolled(tokens()).states, before, rtol=0, atol=1e-8)


def test_states_stay_in_float32_under_autocast():
    torch.manual_seed(0)
    model = transformer(Equilibrium())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, output = model.loss(tokens(), tokens(seed=2))
    loss.backward()
    assert output.states.dtype == torch.float32
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_a_sequence_does_not_depend_on_who_shares_its_batch():
    model = make(transformer, Equilibrium(stopping=Stopping(rtol=1e-3)))
    alone, together = model(tokens()[:1]), model(tokens())
    assert torch.equal(alone.solutions[0].steps[0], together.solutions[0].steps[0])
    torch.testing.assert_close(alone.states[0], together.states[0], rtol=0, atol=1e-12)


def test_second_derivatives_pass_through_attention():
    model = make(transformer)
    solved = model(tokens(2, 3)).pieces[0]
    z = solved.value.detach().requires_grad_()
    noise = torch.randn_like(z)
    (product,) = torch.autograd.grad(solved.function(z), z, noise, create_graph=True)
    product.square().sum().backward()
    assert model.cells[0].qkv.parametrizations.weight.original1.grad.abs().sum() > 0


# --- Vocabulary and sizes -----------------------------------------------------------------------


def test_adaptive_losses_are_log_probabilities_of_targets_that_sum_to_one():
    torch.manual_seed(0)
    vocabulary = AdaptiveVocabulary(30, 8, cutoffs=(6, 14), table=10, divisor=2).double()
    for parameter in vocabulary.parameters():
        torch.nn.init.normal_(parameter)
    hidden, targets = torch.randn(2, 15, 8).double(), torch.arange(30).reshape(2, 15)
    logs = vocabulary.log_probabilities(hidden)
    torch.testing.assert_close(logs.exp().sum(-1), torch.ones(2, 15).double(), rtol=0, atol=1e-12)
    wanted = -logs.gather(2, targets.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(vocabulary.losses(hidden, targets), wanted, rtol=0, atol=1e-11)
    embedded = vocabulary.embed(targets)
    rows = [
        (table @ projection.mT)
        for table, projection in zip(vocabulary.tables, vocabulary.projections, strict=True)
    ]
    torch.testing.assert_close(embedded.reshape(30, 8), torch.cat(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options", "total", "rest", "tolerance"),
    [
        (Transformer, TRANSFORMER_WIKITEXT103, 110e6, 70e6, 0.02),
        (TrellisNet, TRELLISNET_PTB, 24e6, 20e6, 0.02),
        (Transformer, TRANSFORMER_COPY_MEMORY, 14e3, None, 0.05),
        # The sizes of the script, counted by hand: the paper's 180M/45M do not follow from them.
        (TrellisNet, TRELLISNET_WIKITEXT103, 174.2e6, 40.03e6, 0.001),
    ],
)
def test_the_papers_models_have_as_many_parameters_as_it_says(
    kind, options, total, rest, tolerance
):
    with torch.device("meta"):
        count = count_parameters(kind(options))
    assert abs(count.total / total - 1) < tolerance, count
    assert rest is None or abs(count.model / rest - 1) < tolerance, count


@pytest.mark.parametrize(
    ("initial", "deviation"), [("normal", 0.5), ("uniform", 900**-0.5 / 3**0.5)]
)
def test_weights_of_the_cell_start_normal_or_uniform(initial, deviation):
    options = TransformerOptions(
        VOCABULARY, width=30, heads=2, inner=900, deviation=0.5, initial=initial
    )
    torch.manual_seed(0)
    model = Transformer(options)
    (cell,) = model.cells
    weight = cell.contract.weight.detach()
    # 27,000 weights: their deviation is known to within 1 %, five times its own standard error or more.
    assert float(weight.std()) == pytest.approx(deviation, rel=0.03)
    bounded = float(weight.abs().max()) <= 900**-0.5 * (1 + 1e-6)
    assert bounded == (initial == "uniform")
    assert not cell.contract.bias.any()
    assert float(model.injection.weight.detach().std()) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("maker", MAKERS)
def test_the_unrolled_network_has_the_same_parameters_and_a_stack_has_more_cells(maker):
    names = [set(dict(make(maker, depth).named_parameters())) for depth in (TIGHT, WeightTied(7))]
    assert names[0] == names[1]
    cell = sum(p.numel() for p in make(maker).cells.parameters())
    stacked = make(maker, Stacked(3))
    assert count_parameters(stacked).model == count_parameters(make(maker)).model + 2 * cell


# --- What does not fit --------------------------------------------------------------------------


def test_input_that_does_not_fit_is_named():
    model = make(transformer, memory=4, positions=10)
    memory = model(tokens()).memory
    cases = [
        (lambda: model(tokens().double()), TypeError, "tokens must be integers"),
        (lambda: model(tokens()[0]), ValueError, r"tokens must be of shape \(batch, time\)"),
        (lambda: model(tokens() + 1), ValueError, "between 0 and 10, for a vocabulary of 11"),
        (
            lambda: model(tokens(3, 11)),
            ValueError,
            "11 given tokens are more than the 10 positions",
        ),
        (lambda: model(tokens(), memory), ValueError, "4 remembered and 8 given"),
        (lambda: model(tokens(2, 3), memory), ValueError, "that of 3 sequences, but tokens have 2"),
        (lambda: model(tokens(3, 3), memory.states), TypeError, "memory must be the memory"),
        (lambda: model.loss(tokens(), tokens(3, 2)), ValueError, "targets must have the shape"),
        (lambda: model(tokens(), keep=10), ValueError, "keep must be"),
        (lambda: model(tokens(), depth=0), ValueError, "depth must be an integer ≥ 1"),
        (
            lambda: DEQTransformer(make(transformer, WeightTied(2)).options),
            TypeError,
            "needs depth",
        ),
        (lambda: DEQTrellisNet(make(trellisnet, Stacked(2)).options), TypeError, "needs depth"),
        (lambda: TransformerOptions(5, width=7, heads=2), ValueError, "multiple of heads"),
        (lambda: TransformerOptions(5, widht=8), TypeError, "did you mean 'width'"),
        (lambda: TransformerOptions(5, dropout=1.0), ValueError, r"in \[0, 1\)"),
        (lambda: TransformerOptions(5, divisor=4), ValueError, "give cutoffs as well"),
        (lambda: TrellisNetOptions(5, cutoffs=(3, 3)), ValueError, "rise strictly"),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()


@pytest.mark.parametrize("maker", [transformer, trellisnet], ids=["transformer", "trellisnet"])
def test_the_gradient_in_mixed_precision_is_that_of_float32_to_its_rounding(maker):
    torch.manual_seed(0)
    model = make(maker, Equilibrium(stopping=Stopping(rtol=1e-4), on_failure="raise")).float()
    read, targets = tokens(length=40), tokens(length=40, seed=2)
    gradients = []
    for mixed in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            # Of thousands of tokens, each has a cotangent as small as this.
            loss, _ = model.loss(read, targets)
        (1e-4 * loss).backward()
        # The table's gradient is mostly that of the predictions: the cell's is looked at alone.
        gradients.append(torch.cat([p.grad.flatten() for p in model.cells.parameters()]))
    exact, rough = gradients
    # bfloat16 has eight bits, and both solves end at a few units of its rounding.
    assert float((rough - exact).norm() / exact.norm()) < 0.15


def test_models_need_public_names_alone():
    allowed = {"implicit", "implicit.gradients", "solvers"}
    for path in (Path(implicitly.__file__).parent / "models").rglob("*.py"):
        depth = len(path.relative_to(Path(implicitly.__file__).parent).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == depth and node.module:
                folder = node.module.split(".")[0]
                assert folder not in ("implicit", "solvers") or node.module in allowed, path
