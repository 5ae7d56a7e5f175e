"""What every method, model and attack must do, as small checks that authors run on plug-ins of their own.

``check_method(MyMethod())``, ``check_attack(MyAttack())`` and ``check_model(my_model, probes)`` return if all is well
and raise a ``ContractError`` that says what the plug-in must do. The material is toy models in numpy.

>>> from minutia.catalog import method
>>> check_method(method("noise_agreement(probes=20)"))
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from minutia import catalog
from minutia.checks.attacks import ATTACK_RULES
from minutia.checks.benches import Bench, bench_for, layered_bench, learning_bench, marking_bench, toy_bench
from minutia.checks.methods import METHOD_RULES
from minutia.checks.models import MODEL_RULES, check_model
from minutia.checks.subjects import Asked, ContractError, Raid, Trial, must, run_rule, without
from minutia.core.attack import Attack
from minutia.core.method import Method
from minutia.core.probe import numbered

NOT_ON_TOYS = ("fold_norms",)
"""Attacks that need what the toy classifier does not have (batch norms): give ``check_attack`` a bench that has it."""
__all__ = [
    "ATTACK_RULES",
    "METHOD_RULES",
    "MODEL_RULES",
    "NOT_ON_TOYS",
    "Asked",
    "Bench",
    "Check",
    "ContractError",
    "Raid",
    "Trial",
    "all_checks",
    "check_attack",
    "check_method",
    "check_model",
    "layered_bench",
    "learning_bench",
    "marking_bench",
    "run_rule",
    "toy_bench",
    "without",
]


class Check(NamedTuple):
    """One rule for one installed plug-in; ``run`` raises a ContractError if it is broken."""

    group: str
    plugin: str
    rule: str
    run: Callable[[], None]

    def __str__(self) -> str:
        return f"{self.group}-{self.plugin}-{self.rule}"


def check_method(method: Method, bench: Bench | None = None) -> None:
    """Run every check of a method; ``bench`` for methods that need other models than toy classifiers."""
    trial = Trial(method, bench or bench_for(method))
    for rule in METHOD_RULES:
        run_rule(rule, trial)


def check_attack(attack: Attack, bench: Bench | None = None) -> None:
    """Run every check of an attack."""
    trial = Raid(attack, bench or toy_bench())
    for rule in ATTACK_RULES:
        run_rule(rule, trial)


def all_checks() -> list[Check]:
    """Every rule for every installed method and attack with default parameters, and for the toy classifier.

    Models of other kinds need a file or an address: give one to ``check_model``.

    >>> sorted({check.group for check in all_checks()})
    ['attacks', 'methods', 'models']
    """
    rules: Mapping[str, Sequence[Callable[[Any], None]]] = {"methods": METHOD_RULES, "attacks": ATTACK_RULES}
    plugins = [(group, name) for group in rules for name in catalog.names(group)]
    plugins = [(group, name) for group, name in plugins if name not in NOT_ON_TOYS]
    named = [Check(g, n, "its_name_is_registered", partial(_its_name_is_registered, g, n)) for g, n in plugins]
    ruled = [*((g, n, rules[g]) for g, n in plugins), ("models", "toy", MODEL_RULES)]
    return named + [Check(g, n, r.__name__, partial(_run_installed, r, g, n)) for g, n, some in ruled for r in some]


@lru_cache(maxsize=64)
def _installed(group: str, name: str) -> Trial | Raid | Asked:
    """A plug-in of the catalogue with default parameters, ready for the rules of its group."""
    bench = toy_bench()
    if group == "methods":
        method = catalog.load(group, name)()
        return Trial(method, bench_for(method))
    if group == "attacks":
        return Raid(catalog.load(group, name)(), bench)
    return Asked(bench.owner, numbered(bench.thief.inputs[:24], {}))


def _run_installed(rule: Callable[[Any], None], group: str, name: str) -> None:
    run_rule(rule, _installed(group, name))


def _its_name_is_registered(group: str, name: str) -> None:
    cls = catalog.load(group, name)
    must(cls.name == name, cls, f"must be registered under its own name, got {name!r} in the entry points")
