"""How much risk a network has removed: the scale on which a rise of the risk is large or small."""

from __future__ import annotations

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.problem import Problem


def learned(problem: Problem, *, data: Data | None = None) -> float:
    """Return R(constant) - R: the risk if the network always gave its mean output, minus its risk.

    constant = 1/n sum_i model(x_i): a network that ignores its input. Both risks are means over `data` (the training
    data by default), in evaluation mode. Not positive when the network does no better than its own mean output.
    For the squared loss it is the variance that the outputs explain, on a risk that counts one half of it.

    >>> import torch
    >>> data = Data(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [2.0]]))
    >>> learned(Problem(torch.nn.Identity(), data, loss="squared"))  # 1/2 mean of (+-1)^2, and no risk is left
    0.5
    """
    data = problem.train if data is None else data
    output = outputs(problem.model, data)
    constant = output.mean(0, keepdim=True).expand_as(output)
    losses = problem.per_sample(constant, data.targets) - problem.per_sample(output, data.targets)
    return float(losses.double().mean())


def too_little(removed: float, risk: float) -> bool:
    """Return whether `removed` is at most 1 % of the risk it started from, |removed + risk|: no scale to speak of.

    >>> too_little(2.0, 0.3), too_little(1e-8, 2.3), too_little(-0.1, 2.3)
    (False, True, True)
    """
    return removed <= 0.01 * abs(removed + risk)
