"""`verify`: run the checks on a layer and collect their findings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_leaves

from ..implicit.surroundings.closer import watched_solves
from .checks import CORE, FULL_CHECKS
from .checks.conduct import side_effects
from .checks.finite_differences import reference_holds
from .diagnosis import by_check, diagnose
from .equations import residual_of
from .evidence import Evidence
from .inner_solves import closer_layer, settled
from .localise import localised
from .real import real
from .report import LATER, NOT_EXAMINED, Finding, Report
from .session import NoRootError, NotExercisedError, Session, describe
from .subject import LayerError, Subject
from .tightening import Tighten
from .time_limit import TimeLimit
from .undisturbed import undisturbed
from .verdict import Verdict

Effort = Literal["fast", "full"]
_LOCALISED = 2
"""Slots of an output in which the worst component is searched for with fast effort."""
_LARGEST = 1e120
"""Larger values have squares, or products with their derivatives, beyond float64."""
EFFORTS = ("fast", "full")


def verify(
    layer: Callable[..., Any],
    inputs: Any,
    *,
    residual: Callable[..., Any] | None = None,
    tighten: Tighten | None = None,
    seed: int = 0,
    effort: Effort = "fast",
    time_limit: float | None = None,
) -> Report:
    """Examine the gradients of any differentiable layer.

    The checks cover the derivatives of every floating-point output in every input that requires gradients,
    every parameter, and every leaf tensor that the layer closes over. If the layer's equation is known (an
    `ImplicitLayer`, or `residual=`), its output is polished to rounding in float64, which separates the
    solver's own error from the derivative's.

    Args:
        layer: A module, function, or `apply` of an autograd function, called as `layer(*inputs)`.
        inputs: A tensor, a tuple of arguments (pytrees), or a dictionary of named arguments.
        residual: The equation that the output solves, called as `residual(z, *inputs)`, zero at
            the output; `z` has the structure of the output.
        tighten: For an iteration with an unknown equation. Called with a factor below 1, it returns the
            layer with its tolerance multiplied by it (or with as many more steps), on the same
            parameters. Differences are then taken of ever tighter layers. It is not needed with `residual`,
            nor for solves of this package inside of the layer, which are made more exactly where their
            tolerance leaves a doubt.
        seed: Seed of all probes, and of the random state of every call of the layer.
        effort: `"fast"` for tests that run often; `"full"` for more probes, and derivatives of
            the gradient.
        time_limit: Seconds that all calls of the layer may take together. A layer that hangs is then
            interrupted (in the main thread, on systems with signals) and `UNRELIABLE`.

    Returns:
        The verdicts with their evidence. Errors of the layer are part of the report and never raised.

    Raises:
        TypeError: `layer`, `residual` or `tighten` is not callable.
        ValueError: `effort` is unknown, or `time_limit` not positive.
        RuntimeError: It is called in inference mode, or with tensors made there.

    Examples:
        >>> import torch, implicitly
        >>> from implicitly.verification import verify
        >>> W = torch.tensor([[0.3, 0.2], [-0.4, 0.1]], dtype=torch.float64, requires_grad=True)
        >>> layer = implicitly.ImplicitLayer(lambda z, x: torch.tanh(z @ W.mT + x))
        >>> x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
        >>> report = verify(layer, x)
        >>> report.verdict.name, [finding.input for finding in report.findings]
        ('CORRECT', ['input 0', 'captured f.W'])
    """
    for name, function in (("residual", residual), ("tighten", tighten)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be callable or None, got {function!r}")
    if effort not in EFFORTS:
        raise ValueError(f"effort must be one of 'fast', 'full', got {effort!r}")
    _refuse_inference(inputs)
    limit = TimeLimit(time_limit)
    subject = Subject(layer, inputs, seed, residual, limit)
    residual = residual or residual_of(layer)
    with undisturbed(layer, residual, tighten, list(subject.inputs.leaves)), _own_warnings():
        with watched_solves() as inside:
            report, session = _examined(subject, residual, tighten, seed, effort)
        known = residual is not None or tighten is not None
        doubtful = report.verdict in (Verdict.WRONG, Verdict.UNRELIABLE)
        if known or inside.solves == 0 or session is None or not doubtful:
            return report
        subject = Subject(closer_layer(layer), inputs, seed, None, limit)
        again, closer = _examined(subject, None, None, seed, effort)
        if closer is None or len(closer.slots) != len(session.slots):
            return report
        return settled(report, session, again, closer)


def _refuse_inference(inputs: Any) -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "verify needs autograd, which is off inside of torch.inference_mode(): call it outside, or "
            "inside of torch.inference_mode(False)"
        )
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.is_inference():
            raise RuntimeError(
                "inputs must not be tensors made in torch.inference_mode(), which autograd cannot record: "
                "pass tensor.clone().requires_grad_()"
            )


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Let no warning become an error, whatever the caller's filters; those of the layer are in the report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _examined(
    subject: Subject,
    residual: Callable[..., Any] | None,
    tighten: Tighten | None,
    seed: int,
    effort: Effort,
) -> tuple[Report, Session | None]:
    """The report, and the session behind it, if the layer can be called."""
    report = Report(
        layer=describe(subject.layer), findings=(), checks=(), not_exercised=(), notes=(),
        calls=0, effort=effort, seed=seed,
    )  # fmt: skip
    try:
        tape = subject.discover()
    except LayerError as error:
        return replace(report, notes=(str(error),), calls=subject.calls), None
    full = effort == "full"
    session = Session(
        subject, tape, residual, tighten,
        cotangents=4 if full else 2, directions=4 if full else 2, full=full, seed=seed,
    )  # fmt: skip
    if not session.slots:
        session.notes.append("nothing requires gradients: no input, parameter or captured tensor")
    if not any(tape.connected()):
        session.notes.append("no output has a gradient graph; its gradients count as zero")
    _look_again(session)
    unusable = _unusable(session)
    if not unusable:
        evidence, ran, skipped = _run(session)
    else:
        session.notes.append(f"the layer returned values that are {unusable}")
        evidence = [
            Evidence("values", o, slot.name, 0.0, 0.0, 0.0, unreliable=f"the output is {unusable}")
            for o, slot in _pairs(session)
        ]
        ran, skipped = [], [(name, f"the output is {unusable}") for name in CORE]
    skipped = [*((what, NOT_EXAMINED) for what in subject.ignored), *skipped]
    report = replace(
        report,
        findings=_findings(session, evidence, effort),
        checks=tuple(ran),
        not_exercised=tuple(skipped),
        notes=(*session.notes, *(f"the layer warned: {text}" for text in sorted(subject.warnings))),
        calls=subject.calls,
    )
    return report, session


def _unusable(session: Session) -> str:
    """Reason why no derivative of the values can be measured, in words; empty if there is none."""
    if not session.tape.finite:
        return "not finite"
    if any(
        float(real(value).abs().max()) > _LARGEST for value in session.tape.values if value.numel()
    ):
        return "too large for their squares: scale the output"
    return ""


def _look_again(session: Session) -> None:
    """Compare a second call at the same inputs with the first."""
    first = session.tape.values
    try:
        session.again = session.subject.tape()
    except LayerError as error:
        session.notes.append(f"a second call at the same inputs failed: {error}")
        return
    for a, b in zip(first, session.again.values, strict=True):
        if a.shape != b.shape:
            session.notes.append("a second call at the same inputs gave other shapes")
            return
        distance = float((real(a) - real(b)).nan_to_num().abs().sum())
        size = float(real(a).nan_to_num().abs().sum())
        if distance > 0 and size > 0:
            session.repeat = max(session.repeat, distance / size)
    if session.repeat > 0:
        session.notes.append(
            f"two calls at the same inputs and random state differ by {session.repeat:.1e}: the layer "
            "keeps state, or its arithmetic is not deterministic"
        )


def _run(session: Session) -> tuple[list[Evidence], list[str], list[tuple[str, str]]]:
    evidence: list[Evidence] = []
    ran: list[str] = []
    skipped: list[tuple[str, str]] = []
    no_root = ""
    if not session.slots:
        return evidence, ran, [(name, "nothing to differentiate") for name in CORE]
    if not session.full:
        skipped += [(name, LATER) for name in FULL_CHECKS]
    for name, check in (CORE | FULL_CHECKS if session.full else CORE).items():
        try:
            evidence += check(session)
            ran.append(name)
        except NoRootError as reason:
            no_root = str(reason)
            evidence += [_raised(name, o, slot.name, reason) for o, slot in _pairs(session)]
        except NotExercisedError as reason:
            skipped.append((name, str(reason)))
        except LayerError as error:
            evidence += [_raised(name, o, slot.name, error) for o, slot in _pairs(session)]
        except Exception as error:  # A layer that no check foresaw must not end the verification.
            skipped.append((name, f"the check failed: {type(error).__name__}: {error}"))
            session.notes.append(f"the check {name!r} failed with {type(error).__name__}: {error}")
    evidence += side_effects(session)
    if no_root:
        # If the solution has no derivative, the layer's gradients need not be consistent either.
        evidence = [replace(piece, unreliable=piece.unreliable or no_root) for piece in evidence]
    if "implicit reference" in ran:
        doubtful = reference_holds(session)
        if doubtful:
            session.notes.append(doubtful)
            evidence = [_without_reference(piece, doubtful) for piece in evidence]
    return evidence, ran, skipped


def _pairs(session: Session) -> list[tuple[str, Any]]:
    return [(output, slot) for output in session.outputs for slot in session.slots]


def _raised(check: str, output: str, slot: str, error: Exception) -> Evidence:
    return Evidence(check, output, slot, 0.0, 0.0, 0.0, unreliable=str(error))


def _without_reference(piece: Evidence, reason: str) -> Evidence:
    if piece.check != "implicit reference":
        return piece
    return replace(piece, unreliable=reason, reference=False)


def _findings(session: Session, evidence: list[Evidence], effort: Effort) -> tuple[Finding, ...]:
    found: list[Finding] = []
    for o, output in enumerate(session.outputs):
        of_output: dict[int, Finding] = {}
        for s, slot in enumerate(session.slots):
            own = tuple(e for e in evidence if (e.output, e.input) == (output, slot.name))
            if not own:
                continue
            again = _again(session, effort, output, slot.name)
            of_output[s] = Finding.of(own, again, _finer(session))
        _localise(session, o, of_output)
        wrong = [s for s, finding in of_output.items() if finding.verdict is Verdict.WRONG]
        faults = {s: fault for s in wrong if (fault := _fault(of_output[s]))}
        causes = diagnose(session, o, [s for s in wrong if s not in faults])
        for s, cause in (causes | faults).items():
            of_output[s] = replace(of_output[s], cause=cause)
        found += of_output.values()
    first = {(finding.output, finding.input) for finding in found}
    others: dict[tuple[str, str], list[Evidence]] = {}
    for piece in evidence:
        if (piece.output, piece.input) not in first:
            others.setdefault((piece.output, piece.input), []).append(piece)
    for (output, slot_name), pieces in others.items():
        again = _again(session, effort, output, slot_name)
        found.append(Finding.of(tuple(pieces), again, _finer(session)))
    return tuple(found)


def _finer(session: Session) -> str:
    """A way to see smaller errors of the layer at hand, in words."""
    narrow = max(
        (d for d in session.dtypes if torch.finfo(d).eps > torch.finfo(torch.float64).eps),
        key=lambda d: torch.finfo(d).eps,
        default=None,
    )
    if narrow is None:
        return "" if session.solver_is_known else "try another point, or give residual="
    name = str(narrow).removeprefix("torch.")
    module = isinstance(session.subject.layer, torch.nn.Module)
    ways = "layer.double() with inputs in float64" if module else "the layer in float64"
    return f"{name} rounds them away; verify {ways}"


def _localise(session: Session, o: int, found: dict[int, Finding]) -> None:
    """Name the worst component in the most wrong slots: each search takes further calls."""
    wrong = [s for s, finding in found.items() if finding.verdict is Verdict.WRONG]
    wrong.sort(key=lambda s: -found[s].error if found[s].error == found[s].error else -inf)
    for s in wrong[: None if session.full else _LOCALISED]:
        own = localised(session, o, s, found[s].evidence)
        found[s] = Finding.of(own, found[s].reproducer)


def _fault(finding: Finding) -> str:
    """A fault of the backward pass itself, or one that only another presentation of the layer shows."""
    wrong = [e for e in finding.evidence if e.verdict is Verdict.WRONG]
    for piece in wrong:
        if piece.fault:
            return piece.fault
    return by_check(wrong)


def _again(session: Session, effort: Effort, output: str, slot: str) -> str:
    return f"verify(layer, inputs, seed={session.seed}, effort={effort!r})[{output!r}, {slot!r}]"
