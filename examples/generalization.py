"""Why do the bounds say nothing, and what can be promised? Random labels, the capacity table, a certificate."""

import torch

import whydeep as wd
from whydeep.generalization import capacity_table, certify, compare_labels

data, test = wd.data.load("digits", seed=0)
few = data.take(torch.arange(500))
solver = wd.optimization.Backprop(torch.optim.Adam, lr=3e-3, epochs=150)
fits = compare_labels(few, solver, fresh=lambda g: wd.networks.mlp((64, 100, 100, 10), generator=g))
print(f"Fits 500 true labels in {fits.true.passes} passes and 500 random ones in {fits.random.passes}")

start = wd.networks.mlp((64, 100, 100, 10), generator=torch.Generator().manual_seed(0))
model = wd.optimization.Backprop(torch.optim.Adam, lr=3e-3, epochs=20).train(wd.Problem(start, data)).model
print("Bounds on its error by the lecture's capacity measures")
for row in capacity_table(model, data, start=start):
    print(f"  {row.name:45} {row.value:9.2e} {'vacuous' if row.vacuous else ''}")

for method in ("binomial", "kl", "hoeffding"):
    print(f"{method:10}", certify(model, test, method=method, train=data).sentence)
