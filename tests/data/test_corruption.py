import math

import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from whydeep.core import Data, InputError
from whydeep.data import (
    deform,
    gaussian_pixels,
    label_noise,
    load,
    random_labels,
    random_pixels,
    shift,
    shuffled_pixels,
    warp,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=40, channels=2, height=5, width=7, *, dtype=torch.float64):
    x = torch.rand(n, channels, height, width, generator=generator(9), dtype=dtype)
    return Data(x, torch.arange(n) % 4, "random images", classes=4, bounds=(0.0, 1.0))


EVERY = [
    lambda data: label_noise(data, 0.5),
    random_labels,
    shuffled_pixels,
    random_pixels,
    gaussian_pixels,
    lambda data: shift(data, dx=1.5, dy=-2),
    lambda data: deform(data, size=1.0),
]


@pytest.mark.parametrize("corrupt", EVERY)
def test_the_input_is_left_alone_and_the_name_tells(corrupt):
    data = images()
    x, y = data.x.clone(), data.y.clone()
    state = torch.random.get_rng_state()
    changed = corrupt(data)
    assert torch.equal(data.x, x)
    assert torch.equal(data.y, y)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert changed.x.shape == x.shape
    assert changed.x.dtype == x.dtype
    assert changed.classes == 4
    assert changed.name.startswith("random images, ")
    again = corrupt(data)
    assert torch.equal(changed.x, again.x)
    assert torch.equal(changed.y, again.y)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.33, 1.0])
def test_label_noise_is_exact(fraction):
    data = images(400)
    noisy = label_noise(data, fraction, generator=generator())
    assert int((noisy.y != data.y).sum()) == round(400 * fraction)
    assert int(noisy.y.min()) >= 0
    assert int(noisy.y.max()) <= 3


def test_label_noise_is_uniform_over_the_other_classes():
    data = images(12_000, 1, 1, 1)
    steps = (label_noise(data, 1.0, generator=generator()).y - data.y) % 4
    # 12,000 draws of three equal shares: 5 standard errors of a binomial of p = 1/3.
    counts = torch.bincount(steps, minlength=4)
    assert counts[0] == 0
    assert ((counts[1:] - 4000).abs() < 5 * math.sqrt(12_000 * 2 / 9)).all()


def test_label_noise_needs_two_classes_and_a_fraction():
    x = torch.zeros(4, 1)
    with pytest.raises(InputError, match="no two classes"):
        label_noise(Data(x, x.clone()), 0.5)
    with pytest.raises(InputError, match="no two classes"):
        label_noise(Data(x, torch.zeros(4).long(), classes=1), 0.5)
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="in \\[0, 1\\]"):
            label_noise(images(), fraction)


def test_random_labels_keep_the_size_of_every_class_and_no_more():
    data = images(4000, 1, 1, 1)
    mixed = random_labels(data, generator=generator())
    assert torch.equal(torch.bincount(mixed.y), torch.bincount(data.y))
    # Agreement by chance is 1/4; 5 standard errors.
    assert abs(float((mixed.y == data.y).double().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 4000)
    assert torch.equal(mixed.x, data.x)


def test_random_labels_of_a_regression_are_permuted_targets():
    x = torch.arange(20.0).unsqueeze(1)
    mixed = random_labels(Data(x, x.clone()), generator=generator())
    assert torch.equal(mixed.y.sort(0).values, x)
    assert not torch.equal(mixed.y, x)


def test_label_corruptions_stay_lazy(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(5):
            Image.new("L", (3, 3), number).save(tmp_path / label / f"{number}.png")
    train, _ = load(f"folder:{tmp_path}")
    assert random_labels(train).x is train.x
    assert label_noise(train, 0.5).x is train.x
    assert torch.equal(
        shuffled_pixels(train).in_memory().x.flatten(1).sort().values, train.in_memory().x.flatten(1).sort().values
    )


def places(original, changed):
    """For each sample, which place of the original each pixel came from; all entries are distinct."""
    same = original.flatten(2)[:, :, None, :] == changed.flatten(2)[:, :, :, None]
    assert same.sum(3).eq(1).all()
    return same.int().argmax(3)


def test_shuffled_pixels_are_one_permutation_for_all():
    data = images()
    order = places(data.x, shuffled_pixels(data, generator=generator()).x)
    assert (order == order[0, 0]).all()  # the same for all samples and channels
    assert sorted(order[0, 0].tolist()) == list(range(35))
    assert order[0, 0].tolist() != list(range(35))


def test_random_pixels_are_another_permutation_for_each():
    data = images()
    order = places(data.x, random_pixels(data, generator=generator()).x)
    assert (order[:, 0] == order[:, 1]).all()  # channels stay together
    assert len({tuple(own) for own in order[:, 0].tolist()}) == len(data)
    assert all(sorted(own) == list(range(35)) for own in order[:, 0].tolist())


def test_random_pixels_are_uniform():
    # Where pixel 0 comes from, over 10,000 samples of 4 pixels: 5 standard errors of a binomial of p = 1/4.
    x = torch.arange(4.0).expand(10_000, 4).contiguous()
    mixed = random_pixels(Data(x), generator=generator()).x
    counts = torch.bincount(mixed[:, 0].long(), minlength=4)
    assert ((counts - 2500).abs() < 5 * math.sqrt(10_000 * 3 / 16)).all()


def test_vectors_are_shuffled_by_entries():
    x = torch.rand(6, 9, generator=generator())
    for corrupt in (shuffled_pixels, random_pixels):
        changed = corrupt(Data(x)).x
        assert torch.equal(changed.sort(1).values, x.sort(1).values)
        assert not torch.equal(changed, x)


def test_gaussian_pixels_match_mean_and_sd():
    data = images(2000)
    noise = gaussian_pixels(data, generator=generator())
    n = noise.x.numel()
    mean, sd = float(data.x.mean()), float(data.x.std(correction=0))
    assert abs(float(noise.x.mean()) - mean) < 5 * sd / math.sqrt(n)  # 5 standard errors, here and below
    assert abs(float(noise.x.std()) - sd) < 5 * sd / math.sqrt(2 * n)
    assert abs(float((((noise.x - mean) / sd) ** 4).mean()) - 3) < 5 * math.sqrt(96 / n)  # Gaussian, not uniform
    assert noise.bounds is None


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, 2), (-2, 1), (3, -4), (7, 0), (0, -9)])
def test_whole_shifts_move_pixels_exactly(dx, dy):
    data = images(3)
    moved = shift(data, dx=dx, dy=dy).x
    for row in range(5):
        for column in range(7):
            inside = 0 <= row - dy < 5 and 0 <= column - dx < 7
            wanted = data.x[:, :, row - dy, column - dx] if inside else torch.zeros(3, 2, dtype=torch.float64)
            assert torch.equal(moved[:, :, row, column], wanted)


def test_a_fraction_of_a_shift_is_interpolated():
    x = torch.tensor([[[[0.0, 4.0, 0.0, 0.0]]]])
    assert shift(Data(x), dx=1.25).x.flatten().tolist() == [0.0, 0.0, 3.0, 1.0]
    assert shift(Data(x), dx=-0.5).x.flatten().tolist() == [2.0, 2.0, 0.0, 0.0]
    data = images(2)
    tau = torch.tensor([0.7, -1.3], dtype=torch.float64).view(1, 2, 1, 1).expand(2, 2, 5, 7)
    torch.testing.assert_close(shift(data, dx=0.7, dy=-1.3).x, warp(data.x, tau), rtol=0, atol=1e-12)  # rounding


def test_zeros_from_outside_widen_the_bounds():
    data = Data(torch.full((1, 1, 2, 2), 0.6), bounds=(0.5, 1.0))
    assert shift(data, dx=1).bounds == (0.0, 1.0)
    assert deform(data, size=1.0).bounds == (0.0, 1.0)


def test_only_images_can_be_moved():
    for move in (lambda data: shift(data, dx=1), lambda data: deform(data, size=1.0)):
        with pytest.raises(InputError, match="are 3, not images"):
            move(Data(torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="finite"):
        shift(images(), dx=math.inf)
    with pytest.raises(ValueError, match="smoothness > 0"):
        deform(images(), size=1.0, smoothness=0.0)
    with pytest.raises(ValueError, match="size >= 0"):
        deform(images(), size=-1.0)


def test_a_warp_agrees_with_scipy():
    data = images(2)
    tau = 4 * torch.rand(2, 2, 5, 7, generator=generator(), dtype=torch.float64) - 2
    warped = warp(data.x, tau)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    for sample in range(2):
        for channel in range(2):
            # grid-constant: zero outside, interpolated towards it across the border, as warp promises.
            wanted = map_coordinates(
                data.x[sample, channel].numpy(),
                [(rows - tau[sample, 1]).numpy(), (columns - tau[sample, 0]).numpy()],
                order=1,
                mode="grid-constant",
            )
            torch.testing.assert_close(
                warped[sample, channel], torch.from_numpy(wanted), rtol=0, atol=1e-12
            )  # rounding


def test_no_deformation_is_the_identity():
    data = images()
    torch.testing.assert_close(deform(data, size=0.0).x, data.x, rtol=0, atol=1e-12)  # rounding of the grid
    single = images(dtype=torch.float32)
    torch.testing.assert_close(deform(single, size=0.0).x, single.x, rtol=0, atol=1e-5)
    assert deform(images(3, 1, 1, 1), size=0.0).x.shape == (3, 1, 1, 1)  # one pixel


def test_the_largest_displacement_is_the_size():
    # Of the image x(u) = column a displacement shows as -tau_1; of x(u) = row as -tau_2. Away from the border bilinear
    # interpolation of a linear image is exact, and with a size of 1 only one pixel at the border is out of reach.
    height, width = 20, 24
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    ramp = torch.stack([columns, rows]).double().expand(30, 2, height, width).contiguous()
    moved = deform(Data(ramp), size=1.0, smoothness=3.0, generator=generator()).x
    tau = (ramp - moved)[:, :, 1:-1, 1:-1]
    longest = tau.norm(dim=1).amax((1, 2))
    assert float(longest.max()) == pytest.approx(1.0, abs=1e-6)  # the field is in single precision
    assert float(longest.median()) > 0.9  # the maximum lies at the border in some images only
    # Smooth: white noise smoothed by sd s has gradients of about 1/s of its size; 1 pixel apart within 3/s of the
    # largest. Unsmoothed noise would differ by its own size.
    assert float((tau[:, :, :, 1:] - tau[:, :, :, :-1]).abs().max()) < 1.0
    assert float((tau[:, :, :, 1:] - tau[:, :, :, :-1]).square().mean().sqrt()) < 0.5 * float(
        tau.square().mean().sqrt()
    )
    # Each image has a field of its own.
    assert float((tau[0] - tau[1]).abs().max()) > 0.1


def test_deformed_pixels_stay_inside_the_bounds():
    data = Data(torch.ones(50, 1, 8, 8), bounds=(0.0, 1.0))
    moved = deform(data, size=3.0, generator=generator()).x
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
