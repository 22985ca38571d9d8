"""Verification of gradients: whether the derivative of a layer is right; if it is wrong, where and why."""

from .asserting import GradientError, assert_gradients
from .evidence import Component, Evidence
from .export import as_html, as_json, as_junit
from .fitting import Estimate
from .report import Finding, Report
from .unrolling import Agreement, agreement, unrolled
from .verdict import Verdict
from .verifying import verify

__all__ = [
    "Agreement",
    "Component",
    "Estimate",
    "Evidence",
    "Finding",
    "GradientError",
    "Report",
    "Verdict",
    "agreement",
    "as_html",
    "as_json",
    "as_junit",
    "assert_gradients",
    "unrolled",
    "verify",
]
