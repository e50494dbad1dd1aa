"""The checks of assigners: each kind of fault is caught by name; that all shipped ones pass is in ``test_credit``."""

import numpy as np
import pytest

from textgym.checks import CheckError, check_assigner
from textgym.credit import Last, Uniform


class Half(Last):
    def __call__(self, scores, episodes):
        return super().__call__([score / 2 for score in scores], episodes)


class Hidden(Uniform):
    causal = True


class Undeclared:
    def __call__(self, scores, episodes):
        return Last()(scores, episodes)


class Wide(Last):
    def __call__(self, scores, episodes):
        return [np.append(paid, 0.0) for paid in super().__call__(scores, episodes)]


@pytest.mark.parametrize(
    ("assigner", "name"),
    [(Half(), "conservation"), (Hidden(), "causality"), (Undeclared(), "declarations"), (Wide(), "rewards")],
)
def test_an_assigner_that_is_not_what_it_declares_is_caught_by_name(letters, assigner, name):
    with pytest.raises(CheckError) as error:
        check_assigner(assigner, letters, texts=["abc"])
    assert error.value.names[0] == name
