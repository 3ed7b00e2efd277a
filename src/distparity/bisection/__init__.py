"""Find the torch release that changed the result of a case."""

from __future__ import annotations

from distparity.bisection.candidates import Candidate, Span, between, given
from distparity.bisection.environment import Environments, NoEnvironment
from distparity.bisection.observation import Observation, observe
from distparity.bisection.search import Found, search
from distparity.bisection.work import Bisection, Refused

__all__ = [
    "Bisection",
    "Candidate",
    "Environments",
    "Found",
    "NoEnvironment",
    "Observation",
    "Refused",
    "Span",
    "between",
    "given",
    "observe",
    "search",
]
