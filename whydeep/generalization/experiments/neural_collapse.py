r"""Neural collapse: late in training the last features of each class shrink to one point, these points form a simplex,
and the classifier's rows align to them (Papyan, Han and Donoho 2020, PNAS).

With h_ic the feature of sample i of class c (n_c of them), mu_c the class means, mu their mean over classes:
    NC1 = trace(S_W S_B^+) / K,  S_W = 1/n sum (h_ic - mu_c)(h_ic - mu_c)', S_B = 1/K sum_c (mu_c - mu)(mu_c - mu)'
    NC2 = || M M' / ||M M'||_F - (I - 11'/K) / sqrt(K - 1) ||_F,  M the rows mu_c - mu
    NC3 = || W / ||W||_F - M / ||M||_F ||_F,  W the rows of the last layer (their mean subtracted)
    NC4 = fraction of samples on which the network and the nearest class mean decide otherwise
All are 0 at full collapse; NC2 and NC3 are at most 2. NC2 as in Zhu et al. 2021 (recalled, not checked against the
paper); NC3's W is centred since a common row moves all scores alike.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating, outputs


@dataclass(frozen=True)
class NeuralCollapse:
    """The four numbers; all tend to 0 when the last features collapse."""

    within_class: float
    simplex: float
    duality: float
    nearest_mean: float

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """NC1, NC2, NC3, NC4."""
        return self.within_class, self.simplex, self.duality, self.nearest_mean


def last_linear(model: nn.Module, data: Data) -> str | None:
    """Return the name of the Linear layer whose output is the network's output, or None if there is none."""
    few = data.take(torch.arange(min(2, len(data))))
    twin = copy.deepcopy(model)
    seen: dict[str, Tensor] = {}

    def keeper(name: str) -> object:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    for name, module in twin.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(keeper(name))  # type: ignore[arg-type]  # a hook that returns None
    answer = outputs(twin, few)
    for name, output in reversed(seen.items()):
        if output.shape == answer.shape and torch.equal(output, answer):
            return name
    return None


def last_features(model: nn.Module, data: Data, *, batch_size: int = 2048) -> tuple[Tensor, Tensor]:
    """Return (features (n, h), weight (K, h)) of the last Linear layer, in float64 and evaluation mode.

    Raises `InputError` when no Linear layer gives the scores.
    """
    name = last_linear(model, data)
    if name is None:
        raise InputError("no Linear layer of the network gives its scores", "give a network that ends in nn.Linear")
    twin = copy.deepcopy(model)
    layer = twin.get_submodule(name)
    entering: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: entering.append(inputs[0].detach()))
    with evaluating(twin), torch.no_grad():
        for chosen in torch.split(torch.arange(len(data)), batch_size):
            twin(data.x[chosen])
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return torch.cat(entering).double(), weight.detach().double()


def neural_collapse(model: nn.Module, data: Data) -> NeuralCollapse:
    """Return NC1 to NC4 of `model` on the training samples `data`.

    Raises `InputError` without classes, when fewer than two classes have samples, when all class means coincide, or
    when no Linear layer gives the scores. Cost: one pass, one eigendecomposition of the features' size.
    """
    if data.classes is None:
        raise InputError(f"{data.name} has no classes", "give data with classes")
    features, weight = last_features(model, data)
    scores = outputs(model, data)
    return collapse_of(features, data.targets, weight=weight, decisions=scores.argmax(1))


def collapse_of(features: Tensor, targets: Tensor, *, weight: Tensor, decisions: Tensor) -> NeuralCollapse:
    """Return the four numbers of features (n, h), labels (n,), rows weight (K, h) and the network's decisions (n,)."""
    classes = torch.unique(targets)
    if len(classes) < 2:
        raise InputError("all samples are of one class", "give samples of two classes at least")
    count = len(classes)
    means = torch.stack([features[targets == c].mean(0) for c in classes])
    centred = means - means.mean(0)
    if not bool(centred.norm() > 0):
        raise InputError("the class means of the last features coincide", "give a network that tells classes apart")
    spread = features - means[torch.searchsorted(classes, targets)]
    within, between = spread.T @ spread / len(features), centred.T @ centred / count
    first = float((within * torch.linalg.pinv(between, hermitian=True, rtol=1e-10)).sum()) / count
    gram = centred @ centred.T
    eye = torch.eye(count, dtype=torch.float64, device=gram.device)
    simplex = (eye - 1 / count) / (count - 1) ** 0.5
    rows = weight[classes] - weight[classes].mean(0)
    size = rows.norm().clamp(min=torch.finfo(torch.float64).tiny)
    nearest = classes[torch.cdist(features, means).argmin(1)]
    return NeuralCollapse(
        first,
        float((gram / gram.norm() - simplex).norm()),
        float((rows / size - centred / centred.norm()).norm()),
        float((nearest != decisions).double().mean()),
    )
