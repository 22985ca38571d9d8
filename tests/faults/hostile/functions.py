"""Cells that replace the functions of others, those that measure them among them."""

import os
import time

import torch
from implicitly.studies.methods import Attempt

from .registry import act, answer


@act
def replaces_functions_of_torch(equation):
    def hostile(*args, **options):
        return torch.zeros(())

    torch.Tensor.abs = torch.Tensor.max = torch.Tensor.double = hostile


@act
def replaces_the_function_of_the_problem(equation):
    def hostile(self, z, *args):
        return torch.zeros_like(z)

    type(equation.problem).function = hostile
    return answer(equation, claimed=True, status="lies")


@act
def changes_the_known_roots(equation):
    for root in equation.problem.roots():
        root.value.copy_(equation.z0)


@act
def replaces_json_and_the_clock(equation):
    import json

    json.dumps = lambda *args, **options: "{}"
    time.perf_counter = time.monotonic = lambda: 0.0


@act
def replaces_functions_of_the_system(equation):
    os.getpid = lambda: 1
    os._exit = lambda status: None  # type: ignore[return-value]
    os.write = lambda *args: 0


@act
def replaces_what_measures_it(equation):
    from implicitly.studies import judging, measuring

    measuring.judged = judging.outcome_of = lambda *args: "solved"
    measuring._largest = lambda *args: 0.0
    return answer(equation, claimed=True, status="lies")


@act
def returns_a_tensor_with_methods_of_its_own(equation):
    class Lies(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function in (torch.Tensor.abs, torch.Tensor.max, torch.Tensor.double):
                return torch.zeros(())
            return super().__torch_function__(function, types, args, kwargs or {})

    return Attempt((equation.z0 + 1).as_subclass(Lies), claimed=True, status="lies")
