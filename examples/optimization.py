"""Do ten sigmoid layers train? From PyTorch's start Adam stalls and alternating training does not; the right start
removes the difference. And what does the landscape look like at the end?"""

import torch

import whydeep as wd
from whydeep.optimization import StochasticADMM, landscape

train, test = wd.data.load("digits", seed=0)


def network(**start: object) -> torch.nn.Module:
    """Return ten hidden layers of 60 sigmoids."""
    torch.manual_seed(0)  # PyTorch's own start knows no other generator
    generator = torch.Generator().manual_seed(0)
    return wd.networks.mlp((64, *[60] * 10, 10), activation="sigmoid", generator=generator, **start)


for words, start in {"PyTorch's start": {"init": "default"}, "Xavier, gain 4": {"init": "xavier", "gain": 4.0}}.items():
    for solver in (
        wd.optimization.Backprop(torch.optim.Adam, lr=1e-3, epochs=30),
        StochasticADMM(epochs=30, batch_size=50),
    ):
        model = solver.train(wd.Problem(network(**start), train)).model
        right = float((model(test.x).argmax(1) == test.targets).float().mean())
        print(f"{words}, {type(solver).__name__}: {right:.1%} of the test images right")

small = wd.networks.mlp((64, 30, 10), activation="tanh", generator=torch.Generator().manual_seed(0))
problem = wd.Problem(small, train)
found = landscape.spectrum(problem.with_model(wd.optimization.Backprop(epochs=20).train(problem).model), top=3)
print(f"Largest eigenvalues {[round(float(value), 2) for value in found.eigenvalues]}, smallest {found.smallest:.2g}")
print(f"Trace {found.trace:.1f} +- {found.trace_error:.1f}, from {found.products} products with the Hessian")
