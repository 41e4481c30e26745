"""ADMM on minibatches, re-synchronised at every one: the solver for real data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from whydeep.core.data import Data
from whydeep.core.problem import Problem
from whydeep.core.randomness import or_default, spawn
from whydeep.core.training import Callback, Training
from whydeep.optimization.alternating.chain import Chain
from whydeep.optimization.alternating.sweeps import check_dtype, check_sweeper, train_in_sweeps
from whydeep.optimization.counts import check_counts

from .rescaled_start import spreads
from .resynchronised import SCHEDULES, Passes

FADING = 0.01
"""A start fades where the spread of a hidden layer's pre-activations is below this.

On MNIST ten sigmoid layers with gain 4 stay above it (0.024 in the last); those of PyTorch's default start are below
from the third on, with gain 1 from the fourth. With the settings for fading starts three and six layers of PyTorch's
and six of gain 1 were 0.9 to 2 points better (10,000 images, 4 passes, accuracy on 10,000 held-back ones, one seed).
"""
STARTING = 2048
"""Samples that decide it."""
SATURATING = ("sigmoid", "tanh")
"""Activations through which V-steps carry more than the chain rule does.

Accuracy on 10,000 held-back images of MNIST by V-steps and by the chain rule, two seeds, 5 passes: 3 sigmoid layers of
300 .952 .950 and .950 .948 (10,000 images), 3 of tanh .940 .937 and .936 .935 (8,000), 8 of tanh of 200 .908 .908 and
.897 .912 (6,000). Others they hinder: 3 of ReLU .945 .948 and .952 .951, 8 of ReLU .905 .921 and .933 .931, 4 of SiLU
.920 .915 and .937 .930.
"""


@dataclass(frozen=True)
class StochasticADMM:
    """Train by the W-steps of ADMM on minibatches, each from a freshly synchronised point.

    At every minibatch the states V_i are set to the forward pass and the multipliers to what V-steps leave, from the
    last layer down; with state_damping = inf they are the back-propagated gradients, the values that the KKT conditions
    give them, so that the point is feasible and the dual fits. Then all W_i take ADMM's linearised W-step at once, with
    a moving average of the Gram matrix in place of the minibatch's own. With G_i (m, o) the multiplier of each sample
    at the pre-activations of layer i (G_N is the loss's gradient), A (m, d) its inputs, mu their mean and C their
    covariance (`RunningGram`), delta_i the damping, P_i the V-step's map (`state_map`), and gamma_k = (1 + cos(pi k /
    K))/2 in the k-th of K minibatches:

        G_{i-1} = (G_i P_i) s'(U_{i-1}),
        D_i = (G_i'(A - mu)/m) (C + delta_i I)^-1,     d_i = mean(G_i)          in U = (A - mu) W' + b',
        M_i <- momentum M_i + (1 - momentum) c_i D_i,  the same for d_i,
        W_i <- (1 - gamma_k^2 forgetting) W_i - gamma_k (momentum M_i + (1 - momentum) c_i D_i),
                                                                                b'_i likewise, without forgetting:

    Nesterov's momentum, in the form in which W_i is the point where the gradients are taken.

    normed: each G_i is divided by its root mean square, and c_i = tau sqrt(o / <D_i, G_i'(A - mu)/m>), so that the
    pre-activations of every layer change by at most tau (root mean square) a step, however small the gradient that
    arrives there: a vanishing gradient does not stop a layer. The step of the bias is tau d_i. Without `normed` the
    gradients are taken as they are and c_i = tau, d_i times tau: with tau 1, momentum, forgetting and output_ridge 0
    and state_damping inf, a plain step.

    It is not the lecture's algorithm (`ADMM` is), and its multipliers do cross layers. With state_damping = inf it is a
    one-sided preconditioned gradient: FOOF (Benzing 2022), a relative of LocoProp (Amid, Anil and Warmuth 2022) and of
    the input factor of K-FAC (Martens and Grosse 2015) [all recalled, not checked against the papers]; the V-steps
    between, the centring, the norm and the separate treatment of the bias are ours.
    `theorems/a_resynchronised_admm_sweep_is_a_preconditioned_gradient_step.py` checks the identity with ADMM's step.

    epochs, batch_size: passes, and samples a minibatch; the minibatches of a pass differ by one sample at most.
    tau: None takes 0.35 / sqrt(number of layers), as the changes of the output that layers cause add up like
    independent ones.
    damping, floor: delta_i = damping mean(diag C) + floor mean(A^2). data_damping: that of the first layer, whose C
    is that of all data, without floor; data need more, as their directions of little variance are mostly noise.
    forgetting: decay of all weights but the first layer's, early in the run.
    Where damping or forgetting is None the start decides: 0.3 and 0.03 where the signal fades on its way up, that is
    where some hidden layer's pre-activations have a standard deviation below 0.01 over the first 2,048 samples, else 1
    and 0.003. Sigmoid layers at PyTorch's default start are of the first kind: they follow noise at first, which is
    to be forgotten.
    state_damping: the proximal weight of the V-steps, relative to the mean squared singular value of W_i; their maps
    are renewed with the Gram matrices. 1 and less hinder: targets are then far away. None takes 10 where all
    activations saturate (sigmoid and tanh), else infinity.
    output_ridge: the loss of a sample gets the term output_ridge g |f(x)|^2 / 2, g the largest root mean square that
    the gradient by the outputs f(x) has had in a minibatch; None takes 1e-5 for classes, the weight of the ridge of
    `ADMM`, else 0. Without it the minimum lies at infinity where classes can be separated: steps whose size does not
    depend on the gradient's drive the outputs there, and late in the run single minibatches undo what was learnt.
    gram_decay, gram_every: the moving average takes in every gram_every-th minibatch of a pass, the first included.
    validation: the fraction of the training data held back; the iterate with the least risk on it is returned.
    dtype: in which it computes; None takes the type of the model. Inverses are float64.

    Trains an nn.Sequential of Flatten, Linear (with or without bias) and Sigmoid, Tanh, ReLU, LeakyReLU, Softplus,
    SiLU or Identity that ends in Linear, by any loss with a gradient; raises `InputError` on another model.
    History, once a pass and the start first: "loss" (risk on the training samples), "objective" (mean over the pass of
    each minibatch's loss before its step), "seconds", for classes "error", with a split "validation".
    A pass that breaks down is repeated from the best weights with half of tau; after five of these it is DIVERGED.

    Fifty sigmoid layers train from orthogonal weights after `rescaled(problem, spread=0.5)`.
    Cost of a minibatch: the products of a backprop step, and 2 o d^2 operations a hidden layer; every gram_every-th
    2 m d^2 more, an inverse, and with V-steps 2 o d min(o, d). Memory: a second copy of the samples.

    >>> from whydeep.networks import mlp
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(400, 2, generator=generator)
    >>> data = Data(x, (x[:, 0] * x[:, 1] > 0).long(), classes=2)  # exclusive or
    >>> network = mlp((2, 20, 20, 2), activation="sigmoid", init="xavier", gain=4.0, generator=generator)
    >>> history = StochasticADMM(epochs=15, batch_size=20).train(Problem(network, data)).history
    >>> float(history["error"][-1]) < 0.03 < 0.3 < float(history["error"][0])
    True
    """

    epochs: int = 5
    batch_size: int = 500
    tau: float | None = None
    normed: bool = True
    damping: float | None = None
    data_damping: float = 10.0
    floor: float = 0.1
    momentum: float = 0.9
    forgetting: float | None = None
    state_damping: float | None = None
    output_ridge: float | None = None
    gram_decay: float = 0.8
    gram_every: int = 10
    schedule: str = "cosine"
    validation: float = 0.0
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        check_counts(epochs=self.epochs, batch_size=self.batch_size, gram_every=self.gram_every)
        if self.state_damping is not None and not self.state_damping > 0:
            raise ValueError(f"state_damping={self.state_damping}; give a positive number, math.inf for the gradient")
        for name in ("tau", "data_damping"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; give a positive number")
        for name in ("damping", "floor", "output_ridge"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; give a number >= 0")
        for name in ("momentum", "forgetting", "gram_decay"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give a number in [0, 1)")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; give one of {', '.join(SCHEDULES)}")
        check_sweeper(self)
        check_dtype(self)

    @property
    def sweeps(self) -> int:
        """What the loop of alternating methods counts: one pass is one sweep."""
        return self.epochs

    @property
    def tolerance(self) -> float:
        """It has no criterion of convergence: the budget is spent."""
        return 0.0

    def decided(self, chain: Chain, x: Tensor, *, classes: bool) -> StochasticADMM:
        """Return the solver with what is None decided: by `chain`, its start on the samples x (n, d), and the task."""
        fades = min(spreads(chain, x[:STARTING].double()), default=math.inf) < FADING
        damping, forgetting = (0.3, 0.03) if fades else (1.0, 0.003)
        saturating = all(layer.activation.name in SATURATING for layer in chain.layers[:-1])
        state_damping = 10.0 if saturating else math.inf
        return replace(
            self,
            state_damping=state_damping if self.state_damping is None else self.state_damping,
            damping=damping if self.damping is None else self.damping,
            forgetting=forgetting if self.forgetting is None else self.forgetting,
            output_ridge=(1e-5 if classes else 0.0) if self.output_ridge is None else self.output_ridge,
        )

    def train(
        self, problem: Problem, *, generator: torch.Generator | None = None, callback: Callback | None = None
    ) -> Training:
        """Train a copy of `problem.model` from its present parameters; the generator draws split and minibatches."""
        generator = or_default(generator)

        def begin(chain: Chain, train: Data) -> Passes:
            dtype = self.dtype or chain.dtype
            x = chain.rows(train, dtype)
            decided = self.decided(chain, x, classes=train.classes is not None)
            return Passes(decided, chain, x, train.targets, problem.per_sample, spawn(generator))

        return train_in_sweeps(self, problem, begin, name="StochasticADMM", generator=generator, callback=callback)
