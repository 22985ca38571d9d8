"""Cells that raise or return what no table takes."""

import os

import numpy as np
import torch
from implicitly.studies.methods import Attempt

from .registry import act, answer


@act
def raises_a_text_that_is_no_unicode(equation):
    raise FileNotFoundError("no file " + os.fsdecode(b"d\xe9j\xe0.npy"))


@act
def raises_a_long_text(equation):
    raise ValueError("x" * 200_000_000)


class WithoutTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@act
def raises_an_error_without_text(equation):
    raise WithoutTextError


class OwnError(BaseException):
    pass


@act
def raises_an_error_of_its_own_kind(equation):
    raise OwnError("mine")


@act
def raises_an_error_that_causes_itself(equation):
    error = ValueError("round")
    error.__cause__ = error
    raise error


@act
def returns_nothing(equation):
    return "nothing"


@act
def returns_another_thing_for_each_part(equation):
    return Attempt(
        np.zeros(2), claimed=torch.tensor([True, False]), status=3, residual=np.float32(1),
        evaluations=2**70, jvps=torch.tensor(3), vjps=object(), steps="many", reason=b"\xff",
    )  # fmt: skip


@act
def returns_numbers_of_other_types(equation):
    return answer(
        equation, status=np.str_("text"), residual=np.float32(0.5), evaluations=torch.tensor(3),
        jvps=np.int64(4), steps=5.0,
    )  # fmt: skip


@act
def returns_a_lie(equation):
    return Attempt(equation.z0 + 1, claimed=True, status="lies", residual=0.0)
