"""Which layer already separates the classes, and how small a perturbation breaks the network?"""

import torch

import whydeep as wd
from whydeep.representation import attack, features, layers, probe, random_signs

train, test = wd.data.load("digits", seed=0)
start = wd.networks.mlp((64, 100, 100, 10), generator=torch.Generator().manual_seed(0))
model = wd.optimization.Backprop(epochs=20).train(wd.Problem(start, train)).model

print("A linear rule reads the class of a test image")
places = layers(model, train)
seen, unseen = features(model, train, places), features(model, test, places)
for place in places:
    name = place.name
    read = probe(seen[name], train.targets, test_features=unseen[name], test_labels=test.targets)
    print(f"  after {name:8} in {read.accuracy('read').value:.1%} of the cases")

radii = [0.05, 0.1, 0.2]
struck = attack(model, test, radii)
print("Test images still right, each pixel moved by at most the radius")
for radius in radii:
    chance = random_signs(model, test, radius)
    print(f"  {radius:.2f}: {struck.right(radius)} of {len(test)} under attack, {chance} under random signs")
