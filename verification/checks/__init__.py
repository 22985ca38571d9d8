"""Checks: functions from a `Session` to a list of `Evidence`, independent of each other."""

from __future__ import annotations

from .complex_step import complex_step
from .core import CORE, Check
from .elsewhere import another_point, evaluation_mode, other_device, saturated, single_precision
from .memory import memory_of_iterations
from .second_order import forward_over_reverse, second_order
from .taylor import taylor
from .unrolled_network import unrolled_network
from .variants import (
    after_another_call,
    empty_batch,
    expanded,
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
    "empty batch": empty_batch,
    "vmap": vmapped,
    "tied inputs": tied_inputs,
    "after another call": after_another_call,
    "start of the iteration": start_of_the_iteration,
    "another point": another_point,
    "saturated inputs": saturated,
    "single precision": single_precision,
    "evaluation mode": evaluation_mode,
    "another device": other_device,
    "memory of iterations": memory_of_iterations,
}
"""Slower checks, which run with `effort="full"`."""
