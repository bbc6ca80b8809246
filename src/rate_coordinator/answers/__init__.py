"""Understands what upstreams say about their limits: HTTP answers, errors of client libraries, output of programs.

Pure: nothing is sent, nothing is remembered but the providers that were registered.
"""

from rate_coordinator.answers.answer import Answer
from rate_coordinator.answers.exceptions import read_exception
from rate_coordinator.answers.output import read_output
from rate_coordinator.answers.reading import read_answer
from rate_coordinator.answers.registry import providers, register_provider
from rate_coordinator.answers.rules import Clue, Level, Provider, Verdict, Wait, Window

__all__ = [
    "Answer",
    "Clue",
    "Level",
    "Provider",
    "Verdict",
    "Wait",
    "Window",
    "providers",
    "read_answer",
    "read_exception",
    "read_output",
    "register_provider",
]
