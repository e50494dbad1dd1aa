"""Credit assigners: from one score per text to one reward per token. docs/CREDIT.md says when to use which."""

from textgym.credit.assigner import Asking, Assigned, Assigner, Scores, Tally, bind
from textgym.credit.attention import Attention
from textgym.credit.excerpt import excerpt, prefix, units
from textgym.credit.leave_one_out import LeaveOneOut
from textgym.credit.monte_carlo import MonteCarlo
from textgym.credit.placement import Discounted, KeepLast, Last, Uniform
from textgym.credit.prefix_difference import PrefixDifference
from textgym.credit.shapley import Shapley
from textgym.credit.warning import NonCausalCreditWarning, UnpaidStreamsWarning, warn_non_causal, warn_unpaid_streams

ASSIGNERS = {
    "last": Last,
    "uniform": Uniform,
    "discounted": Discounted,
    "prefix_difference": PrefixDifference,
    "leave_one_out": LeaveOneOut,
    "shapley": Shapley,
}
"""Short name -> assigner that needs no argument; the others are handed over as objects."""

__all__ = [
    "ASSIGNERS",
    "Asking",
    "Assigned",
    "Assigner",
    "Attention",
    "Discounted",
    "KeepLast",
    "Last",
    "LeaveOneOut",
    "MonteCarlo",
    "NonCausalCreditWarning",
    "PrefixDifference",
    "Scores",
    "Shapley",
    "Tally",
    "Uniform",
    "UnpaidStreamsWarning",
    "bind",
    "excerpt",
    "prefix",
    "units",
    "warn_non_causal",
    "warn_unpaid_streams",
]
