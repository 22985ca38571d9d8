"""Checks: functions from a `Session` to a list of `Evidence`, independent of each other."""

from __future__ import annotations

from .complex_step import complex_step
from .core import CORE, Check
from .cotangents import (
    by_backward,
    layout_of_cotangent,
    outputs_at_once,
    some_inputs,
    vmapped_backward,
    zero_cotangent,
)
from .custom_operators import custom_operators, eager
from .elsewhere import (
    another_point,
    opposite_signs,
    other_device,
    other_mode,
    saturated,
    single_precision,
)
from .memory import memory_of_iterations
from .second_order import forward_over_reverse, second_order
from .taylor import taylor
from .unrolled_network import unrolled_network
from .variants import (
    after_another_call,
    empty_batch,
    expanded,
    larger_batch,
    memory_layout,
    rows,
    second_backward,
    start_of_the_iteration,
    tied_inputs,
    vmapped,
)

__all__ = ["CORE", "FULL_CHECKS"]

FULL_CHECKS: dict[str, Check] = {
    "complex step": complex_step,
    "Taylor remainders": taylor,
    "unrolled network": unrolled_network,
    "second order": second_order,
    "forward over reverse": forward_over_reverse,
    "second backward pass": second_backward,
    "memory layout": memory_layout,
    "expanded inputs": expanded,
    "rows of the batch": rows,
    "a larger batch": larger_batch,
    "empty batch": empty_batch,
    "layout of the cotangent": layout_of_cotangent,
    "a cotangent of zeros": zero_cotangent,
    "all outputs at once": outputs_at_once,
    "by .backward()": by_backward,
    "one input alone": some_inputs,
    "vmap": vmapped,
    "vmap over the backward pass": vmapped_backward,
    "tied inputs": tied_inputs,
    "after another call": after_another_call,
    "start of the iteration": start_of_the_iteration,
    "another point": another_point,
    "opposite signs": opposite_signs,
    "saturated inputs": saturated,
    "single precision": single_precision,
    "the other mode": other_mode,
    "another device": other_device,
    "compiled against eager": eager,
    "custom operators": custom_operators,
    "memory of iterations": memory_of_iterations,
}
"""Slower checks, which run with `effort="full"`."""
