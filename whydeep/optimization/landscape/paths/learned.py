"""How much risk a network has removed: the scale on which a rise of the risk is large or small."""

from __future__ import annotations

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.evaluation import outputs
from whydeep.core.loss import Loss, cross_entropy, hinge, one_hot, squared
from whydeep.core.problem import Problem


def learned(problem: Problem, *, data: Data | None = None) -> float:
    """Return R(guess) - R: the risk of the best constant answer, minus the network's.

    guess: the output that is the same for every sample and has the least risk; see `best_guess`. With the
    cross-entropy R(guess) is the entropy of the class frequencies, at most ln k for k classes; with the squared loss
    it is half the variance of the targets, and what was learned is the part of it that the network explains.
    Both risks are means over `data` (the training data by default), in evaluation mode. Not positive when the network
    does no better than guessing.

    >>> import torch
    >>> data = Data(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.0], [2.0]]))
    >>> learned(Problem(torch.nn.Identity(), data, loss="squared"))  # 1/2 mean of (+-1)^2, and no risk is left
    0.5
    """
    data = problem.train if data is None else data
    output = outputs(problem.model, data)
    constant = best_guess(problem.per_sample, data.targets, like=output).expand_as(output)
    losses = problem.per_sample(constant, data.targets) - problem.per_sample(output, data.targets)
    return float(losses.double().mean())


def best_guess(loss: Loss, targets: Tensor, *, like: Tensor) -> Tensor:
    """Return the constant output (1, ...) with the least mean loss over `targets` (n,) or (n, ...).

    like: outputs (n, ...) of a network, for shape and type. With p_k the frequency of class k: the cross-entropy is
    least at ln p_k, the squared loss at p_k (for regression at the mean target), the hinge loss at the sign of
    2 p_k - 1. Any other loss is minimised by L-BFGS from the mean of `like`: for a convex loss the best constant up to
    rounding, for others one that is not worse than that mean. Cost of that: at most 125 losses of n samples.
    """
    frequencies = one_hot(targets, like).to(like.dtype).mean(0, keepdim=True)
    if loss.per_sample is cross_entropy:
        return frequencies.log()  # minus infinity for a class that does not occur: it is given no probability
    if loss.per_sample is squared:
        return frequencies
    if loss.per_sample is hinge:
        return (2 * frequencies - 1).sign()
    start = like.detach().mean(0, keepdim=True)
    constant = start.clone().requires_grad_()
    search = torch.optim.LBFGS([constant], max_iter=100, line_search_fn="strong_wolfe")

    def risk() -> Tensor:
        mean: Tensor = loss(constant.expand_as(like), targets).mean()
        constant.grad = torch.autograd.grad(mean, constant)[0]
        return mean.detach()

    with torch.enable_grad():
        before = float(risk())
        search.step(risk)  # type: ignore[no-untyped-call]
        after = float(risk())
    return constant.detach() if after <= before else start


def too_little(removed: float, risk: float) -> bool:
    """Return whether `removed` is at most 1 % of the risk of guessing, |removed + risk|: no scale to speak of.

    >>> too_little(2.0, 0.3), too_little(1e-8, 2.3), too_little(-0.1, 2.3)
    (False, True, True)
    """
    return removed <= 0.01 * abs(removed + risk)
