"""Verification of gradients: is the derivative of a layer right, and if not, where and why."""

from .evidence import Component, Evidence
from .report import Finding, Report
from .verdict import Verdict
from .verifying import verify

__all__ = ["Component", "Evidence", "Finding", "Report", "Verdict", "verify"]
