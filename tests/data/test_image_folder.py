import numpy as np
import pytest
import torch
from PIL import Image

from whydeep.core import Data, DataError
from whydeep.data import load


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def write_set(root, *, each=5, shape=(4, 6)):
    rng = np.random.default_rng(0)
    pixels = {}
    for label in ("b", "a"):
        for number in range(each):
            pixels[label, number] = rng.integers(0, 256, shape)
            save(root / label / f"{number}.png", pixels[label, number])
    return pixels


def test_images_are_read_as_they_are_stored(tmp_path):
    pixels = write_set(tmp_path)
    train, test = load(f"folder:{tmp_path}")
    assert (len(train), len(test)) == (8, 2)
    assert train.labels == ("a", "b")  # sorted
    assert train.input_shape == (1, 4, 6)
    assert train.bounds == (0.0, 1.0)
    assert not isinstance(train.x, torch.Tensor)  # lazy
    stored = {tuple(image.ravel().tolist()): label for (label, _), image in pixels.items()}
    for part in (train, test):
        for x, y in zip(part.in_memory().x, part.y, strict=True):
            assert stored[tuple((255 * x).round().int().flatten().tolist())] == part.labels[y]


def test_lazy_batches_are_those_in_memory(tmp_path):
    write_set(tmp_path)
    train, _ = load(f"folder:{tmp_path}")
    batches = [x for x, _ in train.batches(3)]
    assert [len(batch) for batch in batches] == [3, 3, 2]
    assert torch.equal(torch.cat(batches), train.in_memory().x)
    assert isinstance(train.take(torch.tensor([1])), Data)


def test_colour_is_channels_first(tmp_path):
    red = np.zeros((4, 4, 3))
    red[0, 1] = [255, 0, 51]
    for label in "ab":
        for number in range(5):
            save(tmp_path / label / "inner" / f"{number}.png", red)
    x = load(f"folder:{tmp_path}")[0].in_memory().x
    assert x.shape == (8, 3, 4, 4)
    assert x[0, :, 0, 1].tolist() == pytest.approx([1.0, 0.0, 0.2])
    grey = load(f"folder:{tmp_path}?channels=grey")[0].in_memory().x
    assert float(grey[0, 0, 0, 1]) == pytest.approx(0.299 + 0.2 * 0.114, abs=1 / 255)  # rounded to a byte


def test_a_given_split_is_kept(tmp_path):
    write_set(tmp_path / "train", each=3)
    pixels = write_set(tmp_path / "test", each=2)
    train, test = load(f"folder:{tmp_path}")
    assert (len(train), len(test)) == (6, 4)
    np.testing.assert_allclose(test.in_memory().x[0, 0].numpy(), pixels["a", 0] / 255, rtol=1e-6)
    save(tmp_path / "test" / "c" / "0.png", np.zeros((4, 6)))
    with pytest.raises(DataError, match="classes c are in one part only"):
        load(f"folder:{tmp_path}")


def test_three_parts_are_refused(tmp_path):
    for part in ("train", "test", "val"):
        write_set(tmp_path / part, each=1)
    with pytest.raises(DataError, match="train, val and test"):
        load(f"folder:{tmp_path}")


def test_mixed_sizes_need_a_size(tmp_path):
    write_set(tmp_path)
    white = np.full((8, 4), 255)
    save(tmp_path / "a" / "9.png", white)
    with pytest.raises(DataError, match=r"2 sizes \(10 of 6 x 4, 1 of 4 x 8\)"):
        load(f"folder:{tmp_path}")
    train, test = load(f"folder:{tmp_path}?size=3")
    assert train.input_shape == (1, 3, 3)
    every = torch.cat([train.in_memory().x, test.in_memory().x])
    assert len(every) == 11
    assert int((every == 1).flatten(1).all(1).sum()) == 1  # white stays white when it is scaled


def test_a_size_scales_and_cuts_around_the_centre(tmp_path):
    # 16 x 8 in four bands of four columns, white, black, white, black: the inner 8 x 8 is cut, each half one pixel.
    columns = np.repeat([255, 0, 255, 0], 4)
    for label in "ab":
        for number in range(5):
            save(tmp_path / label / f"{number}.png", np.tile(columns, (8, 1)))
    x = load(f"folder:{tmp_path}?size=2")[0].in_memory().x[0, 0]
    # The triangle filter of half-width 4 around column 2 of the cut gives the bands on both sides, at distances 2.5 and
    # 3.5, weights 1.5/4 and 0.5/4 each, out of a sum of 4: 1/8 each, 1/4 together. Rounded to a byte.
    torch.testing.assert_close(x, torch.tensor([[0.25, 0.75], [0.25, 0.75]]), rtol=0, atol=1 / 255)


def test_grey_and_colour_mixed_need_channels(tmp_path):
    write_set(tmp_path)
    save(tmp_path / "a" / "9.png", np.zeros((4, 6, 3)))
    with pytest.raises(DataError, match="grey and colour"):
        load(f"folder:{tmp_path}")
    assert load(f"folder:{tmp_path}?channels=rgb")[0].input_shape == (3, 4, 6)


def test_transparency_is_not_dropped_silently(tmp_path):
    write_set(tmp_path)
    save(tmp_path / "a" / "9.png", np.zeros((4, 6, 4)))
    with pytest.raises(DataError, match="of the kind RGBA"):
        load(f"folder:{tmp_path}")


def test_sixteen_bits_are_refused(tmp_path):
    write_set(tmp_path)
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(tmp_path / "a" / "9.png")
    with pytest.raises(DataError, match="neither 8-bit grey nor RGB"):
        load(f"folder:{tmp_path}")


def test_what_is_no_image_is_named(tmp_path):
    write_set(tmp_path)
    (tmp_path / "a" / ".hidden").write_text("the habit of file managers")
    load(f"folder:{tmp_path}")
    path = tmp_path / "a" / "notes.txt"
    path.write_text("no image")
    with pytest.raises(DataError, match=r"notes.txt: this is not an image"):
        load(f"folder:{tmp_path}")


def test_an_image_that_is_cut_off_is_named_when_it_is_read(tmp_path):
    write_set(tmp_path, shape=(40, 40))
    path = tmp_path / "a" / "2.png"
    path.write_bytes(path.read_bytes()[:-200])
    train, test = load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=r"2.png: the image is damaged or cut off"):
        _ = [part.in_memory() for part in (train, test)]


def test_an_image_that_changed_its_size_is_named(tmp_path):
    write_set(tmp_path)
    train, _ = load(f"folder:{tmp_path}")
    for label in "ab":
        for number in range(5):
            save(tmp_path / label / f"{number}.png", np.zeros((4, 4)))
    with pytest.raises(DataError, match="it is 4 x 4 now, not 6 x 4"):
        train.in_memory()


def test_folders_that_are_no_set(tmp_path):
    with pytest.raises(DataError, match="no class folders"):
        load(f"folder:{tmp_path}")
    save(tmp_path / "a" / "1.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"one class folder only \(a\)"):
        load(f"folder:{tmp_path}")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="the class folder is empty"):
        load(f"folder:{tmp_path}")
    save(tmp_path / "loose.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"1 images as loose.png lie beside"):
        load(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="this is a file"):
        load(f"folder:{tmp_path}/loose.png")
