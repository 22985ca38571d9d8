"""The problems of Moré, Garbow & Hillstrom as Python for JAX, from the operations that PyTorch records."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from implicitly.problems import least_squares
from implicitly.problems.least_squares import LeastSquaresProblem
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

SCALES = (1.0, 10.0, 100.0)
# Arguments by place; those that are missing have the defaults of PyTorch's operations.
FORMS: dict[str, Callable[..., str]] = {
    "mul.Tensor": "({0} * {1})".format,
    "sub.Tensor": "({0} - {1})".format,
    "add.Tensor": "({0} + {1})".format,
    "div.Tensor": "({0} / {1})".format,
    "pow.Tensor_Scalar": "({0} ** {1})".format,
    "pow.Tensor_Tensor": "({0} ** {1})".format,
    "neg.default": "(-{0})".format,
    "rsub.Scalar": "({1} - {0})".format,
    "lt.Scalar": "({0} < {1})".format,
    "bitwise_and.Tensor": "({0} & {1})".format,
    "mm.default": "({0} @ {1})".format,
    **{f"{name}.default": f"jnp.{name}({{0}})".format for name in ("cos", "exp", "sin", "log", "abs")},
    "atan2.default": "jnp.arctan2({0}, {1})".format,
    "hypot.default": "jnp.hypot({0}, {1})".format,
    "minimum.default": "jnp.minimum({0}, {1})".format,
    "zeros_like.default": "jnp.zeros_like({0})".format,
    "ones_like.default": "jnp.ones_like({0})".format,
    "scalar_tensor.default": "jnp.asarray({0}, float)".format,
    "lift_fresh_copy.default": "{0}".format,
    "where.self": "jnp.where({0}, {1}, {2})".format,
    "stack.default": lambda parts, dim=0: f"jnp.stack([{parts}], axis={dim})",
    "cat.default": lambda parts, dim=0: f"jnp.concatenate([{parts}], axis={dim})",
    "sum.dim_IntList": lambda x, dim, keep=False: f"jnp.sum({x}, axis=({dim},), keepdims={keep})",
    "mean.dim": lambda x, dim, keep=False: f"jnp.mean({x}, axis=({dim},), keepdims={keep})",
    "prod.dim_int": lambda x, dim, keep=False: f"jnp.prod({x}, axis={dim}, keepdims={keep})",
    "cumsum.default": "jnp.cumsum({0}, axis={1})".format,
    "flip.default": "jnp.flip({0}, axis=({1},))".format,
    "unbind.int": lambda x, dim=0: f"list(jnp.moveaxis({x}, {dim}, 0))",
    "unsqueeze.default": "jnp.expand_dims({0}, {1})".format,
    "squeeze_.dim": "jnp.squeeze({0}, {1})".format,
    "transpose.int": "jnp.swapaxes({0}, {1}, {2})".format,
    "view.default": "jnp.reshape({0}, ({1},))".format,
    "expand.default": "jnp.broadcast_to({0}, ({1},))".format,
    "slice.Tensor": lambda x, dim=0, a=0, b=None, step=1: (
        f"jnp.moveaxis(jnp.moveaxis({x}, {dim}, 0)[{a}:{b}:{step}], 0, {dim})"
    ),
    "constant_pad_nd.default": lambda x, pad, value=0: (
        f"jnp.pad({x}, [(0, 0)] * ({x}.ndim - 1) + [({pad})], constant_values={value})"
    ),
    "arange.default": "jnp.arange({0})".format,
    "arange.start": "jnp.arange({0}, {1})".format,
}  # fmt: skip


def written(graph: GraphModule) -> str:
    """The operations of a graph of one tensor as a function `residual` of JAX."""
    lines = ["def residual(z):"]
    for node in graph.graph.nodes:
        lines.append(f"    {_line(node, graph)}")
    return "\n".join(lines)


def _line(node: Node, graph: GraphModule) -> str:
    if node.op == "placeholder":
        return f"{node} = z"
    if node.op == "output":
        return f"return {_text(node.args[0])}"
    if node.op == "get_attr":
        return f"{node} = jnp.asarray({getattr(graph, str(node.target)).tolist()!r})"
    args = [_text(arg) for arg in node.args]
    name = str(node.target).removeprefix("aten.")
    if "getitem" in name:
        return f"{node} = {args[0]}[{args[1]}]"
    dtype = node.kwargs.get("dtype")
    cast = ".astype(float)" if dtype == torch.float64 and name.startswith("arange") else ""
    return f"{node} = {FORMS[name](*args)}{cast}"


def _text(arg: Any) -> str:
    if isinstance(arg, (list, tuple)):
        return ", ".join(map(_text, arg))
    return str(arg)


def _residual(problem: LeastSquaresProblem, z: torch.Tensor) -> torch.Tensor:
    return problem.residual(z)


def write(place: Path) -> None:
    """Write all problems with their starts, and the residuals there as a check of the translation."""
    problems = {}
    for problem in least_squares.all():
        starts = [replace(problem, start_scale=scale).start() for scale in SCALES]
        graph = make_fx(partial(_residual, problem))(starts[0])
        problems[problem.name] = {
            "source": written(graph),
            "scales": SCALES,
            "starts": [start.tolist() for start in starts],
            "values": [problem.residual(start).tolist() for start in starts],
        }
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(problems), encoding="utf-8")
