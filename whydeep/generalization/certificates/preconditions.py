"""What a certificate takes for granted, as far as it can be checked: one fixed classifier, and samples new to it."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from whydeep.core.data import Data
from whydeep.core.errors import InputError
from whydeep.core.evaluation import evaluating
from whydeep.generalization.risk import Classifier

from .certificate import Certificate

FEW = 0.01
"""A share of repeated samples up to which they change nothing that is shown: a bound from n (1 - FEW) samples instead
of n exceeds the measured error by half a per cent more of itself."""


def overlap(train: Data, heldout: Data) -> int:
    """Return how many samples of `heldout` are, number by number, among those of `train`; labels are not compared.

    Found by a 128-bit hash of each sample in single precision, so that a lazily read set need not fit into memory; an
    image and its flattened values are the same sample.
    A sample that was shifted, scaled or otherwise changed is not recognised. Cost: one reading of both.

    >>> import torch
    >>> data = Data(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 0]), classes=2)
    >>> overlap(data.take(torch.tensor([0, 1])), data.take(torch.tensor([1, 2])))
    1
    """
    if math.prod(train.input_shape) != math.prod(heldout.input_shape):
        return 0
    known = set(_hashes(train))
    return sum(value in known for value in _hashes(heldout))


def check_disjoint(train: Data, heldout: Data) -> None:
    """Raise `InputError`, with the count, when held-out samples are among the training samples."""
    common = overlap(train, heldout)
    if common:
        raise InputError(
            f"{common} of the {len(heldout)} held-out samples of {heldout.name} are among the training samples",
            "take them out: a certificate counts only samples that are new to the classifier",
        )


def check_among(train: Data, part: Data) -> None:
    """Raise `InputError` unless every sample of `part` is one of `train`, no more often than there."""
    strange = (Counter(_hashes(part)) - Counter(_hashes(train))).total()
    if strange:
        raise InputError(
            f"{strange} of the {len(part)} samples of {part.name} are not among the training samples",
            "give a part of the training samples, each once; new samples go to heldout=",
        )


def repeats(data: Data) -> int:
    """Return how many samples are, number by number, another one before them; labels are not compared.

    >>> import torch
    >>> repeats(Data(torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([0, 1, 0]), classes=2))
    1
    """
    return len(data) - len(set(_hashes(data)))


def with_repeats(found: Certificate, data: Data) -> Certificate:
    """Return the certificate with a note of the repeated samples among those that it counts.

    Draws from a distribution on few values repeat each other, and the certificate holds for them. Copies look the
    same, and with them it does not hold: twenty copies of a set know no more than the set. The samples do not tell one
    from the other, so nothing is refused, but where more than `FEW` repeat, that they are draws becomes its condition.
    """
    again = repeats(data)
    if not again:
        return found
    note = f"{again:,} of the {len(data):,} samples repeat another one exactly"
    condition = found.condition
    if again > FEW * len(data):
        own = f"the {again:,} samples that repeat others are draws of their own and no copies"
        condition = f"{condition} and {own}" if condition else own
    return replace(found, condition=condition, notes=(*found.notes, note))


def check_fixed(model: Classifier, data: Data) -> None:
    """Raise `InputError` unless `model` is one fixed classifier, whose answer depends on the sample alone.

    Refused: a network in training mode with layers that behave otherwise there (dropout, batch normalisation) or whose
    outputs are others there, one whose outputs differ from call to call even in evaluation mode, and one whose output
    for a sample changes with the others of its batch (batch normalisation without statistics of its own): its mistakes
    are not independent. Looked up on the first eight samples. Anything that is no network is taken as it is.
    """
    if not isinstance(model, nn.Module):
        return
    changing = sorted({type(module).__name__ for module in model.modules() if module.training and _changes(module)})
    if changing:
        raise InputError(
            f"the network is in training mode, in which its {', '.join(changing)} makes it another classifier",
            "call model.eval() first; the certificate is for the network in evaluation mode",
        )
    few = data.x[torch.arange(min(8, len(data)))]
    trained = _outputs_in_training(model, few) if model.training else None
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            one, two = model(few), model(few)
        except (RuntimeError, TypeError, ValueError, IndexError) as fault:
            raise InputError(
                f"the network cannot take samples of shape {data.input_shape}: {str(fault).strip().splitlines()[0]}",
                "give a network for this shape, or data of the network's shape",
            ) from fault
    if not _same(one, two):
        raise InputError(
            "the network's outputs differ from call to call, so it is no fixed classifier", "switch off what is random"
        )
    if len(few) > 1 and not _alone(model, few, one):
        raise InputError(
            "the network's output for a sample changes with the other samples of its batch",
            "give a network that answers each sample by itself",
        )
    if trained is not None and not _same(one, trained):
        raise InputError(
            "the network is in training mode, in which its outputs are others than in evaluation mode",
            "call model.eval() first; the certificate is for the network in evaluation mode",
        )


def _outputs_in_training(model: nn.Module, x: object) -> object:
    """Outputs of a copy, whose statistics may change; None where it cannot run."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return copy.deepcopy(model)(x)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None


def _alone(model: nn.Module, x: Tensor, together: object) -> bool:
    """Whether each sample, a batch of its own, has the outputs that it has together with the others."""
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            pieces = [model(sample) for sample in torch.split(x, 1)]
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    if not all(isinstance(piece, Tensor) and piece.ndim for piece in pieces):
        return True  # no tensors are looked into elsewhere
    if not (isinstance(together, Tensor) and together.is_floating_point()):
        return _same(together, torch.cat(pieces))
    # Other sizes of a batch take other kernels; what mixes samples changes outputs by as much as they differ.
    tolerance = max(1e-3, 16 * torch.finfo(together.dtype).eps) * float(together.abs().max())
    return torch.allclose(together, torch.cat(pieces), rtol=0.0, atol=tolerance, equal_nan=True)


def _same(one: object, two: object) -> bool:
    """Whether two outputs agree; what is no tensor is not looked into."""
    if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
        return True
    # Kernels may sum in another order from call to call: single precision differs in its last digits only.
    return one.shape == two.shape and torch.allclose(one, two, rtol=1e-4, atol=1e-6, equal_nan=True)


def _changes(module: nn.Module) -> bool:
    """Whether the module behaves otherwise in training mode."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return bool(module.p > 0)
    if isinstance(module, nn.MultiheadAttention):
        return bool(module.dropout > 0)
    return isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None


def _hashes(data: Data) -> Iterator[bytes]:
    for chosen in torch.split(torch.arange(len(data)), 4096):
        # Adding 0.0 turns -0.0 into 0.0, which is the same number in other bits.
        rows = (data.x[chosen].detach().cpu().float().flatten(1) + 0.0).contiguous().numpy()
        for row in rows:
            yield hashlib.blake2b(row.tobytes(), digest_size=16).digest()
