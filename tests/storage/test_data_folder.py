"""Folders of images: what is read in which order, and one sentence that names the file that is no image."""

import os
import sys
import zlib

import numpy as np
import pytest

from minutia.core.errors import FileError, MissingExtraError, UsageError
from minutia.storage import data_folder
from minutia.storage.data import load_dataset

PIL = pytest.importorskip("PIL")
from PIL import Image  # noqa: E402

RNG = np.random.default_rng(0)


def picture(path, shape=(4, 5, 3), value=None, kind=None):
    """A PNG of random levels, or of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path, kind)
    return pixels


@pytest.fixture
def pets(tmp_path):
    """Three cats with levels 0 to 2, four dogs with levels 10 to 13."""
    for name, first, count in (("cat", 0, 3), ("dog", 10, 4)):
        for i in range(count):
            picture(tmp_path / "pets" / name / f"{i}.png", value=first + i)
    return tmp_path / "pets"


def levels(inputs):
    """The one level of each flat image."""
    return np.round(inputs[:, 0, 0, 0] * 255).astype(int)


def test_a_class_is_a_subfolder_and_a_fifth_is_held_out(pets):
    data = load_dataset(f"folder:{pets}")
    assert (data.content, data.levels, data.bounds, data.classes) == ("image", 256, (0.0, 1.0), 2)
    assert data.inputs.shape == (6, 3, 4, 5) and data.test_inputs.shape == (1, 3, 4, 5)
    seen, labels = np.concatenate([data.inputs, data.test_inputs]), np.concatenate([data.labels, data.test_labels])
    assert sorted(levels(seen).tolist()) == [0, 1, 2, 10, 11, 12, 13]
    np.testing.assert_array_equal(labels, levels(seen) >= 10)


def test_a_bare_path_is_the_same_and_so_is_every_reading(pets):
    assert load_dataset(str(pets)).digest == load_dataset(f"folder:{pets}").digest == load_dataset(f"{pets}/").digest


def test_pixels_arrive_as_they_were_stored_with_channels_first(tmp_path):
    stored = {name: picture(tmp_path / name / "a.png", (3, 2, 3)) for name in "xyz"}
    data = load_dataset(str(tmp_path))
    for image, label in zip(data.inputs, data.labels, strict=True):
        np.testing.assert_array_equal(np.round(image * 255).transpose(1, 2, 0), stored["xyz"[label]])


def test_train_and_test_lie_beneath(pets, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    pets.rename(both / "train")
    picture(both / "test" / "dog" / "new.png", value=99)
    picture(both / "aside" / "dog" / "x.png", value=50)
    data = load_dataset(str(both))
    assert len(data.inputs) == 7 and levels(data.test_inputs).tolist() == [99] and data.test_labels.tolist() == [1]


def test_without_a_test_folder_a_fifth_of_train_is_held_out(pets, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    pets.rename(both / "train")
    data = load_dataset(str(both))
    assert (len(data.inputs), len(data.test_inputs)) == (6, 1)


def test_rows_mix_the_classes_though_files_are_sorted_by_class(tmp_path):
    for part in ("train", "test"):
        for name in ("a", "b"):
            for i in range(20):
                picture(tmp_path / part / name / f"{i}.png", (2, 2))
    data = load_dataset(f"{tmp_path}?rows=0:12&gray=true")
    assert 2 < data.labels.sum() < 10 and data.inputs.shape == (12, 1, 2, 2)


def test_gray_has_one_channel_and_every_kind_of_image_fits(tmp_path):
    picture(tmp_path / "a" / "colour.png", (4, 4, 3))
    picture(tmp_path / "a" / "gray.png", (4, 4))
    picture(tmp_path / "b" / "see-through.png", (4, 4, 4))
    picture(tmp_path / "b" / "photo.JPG", (4, 4, 3), kind="JPEG")
    Image.new("P", (4, 4)).save(tmp_path / "b" / "palette.gif")
    for query, channels in (("?gray=true", 1), ("?gray=false", 3), ("", 3)):
        data = load_dataset(f"{tmp_path}{query}")
        assert data.inputs.shape == (4, channels, 4, 4) and len(data.test_inputs) == 1


def test_size_cuts_the_middle_square_and_resizes(tmp_path):
    """A wide image with a black band at either side: the middle is white."""
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 255
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "wide.png")
        picture(tmp_path / name / "small.png", (2, 2), value=255)
    data = load_dataset(f"{tmp_path}?size=4&gray=true")
    assert data.inputs.shape == (4, 1, 4, 4) and data.inputs.min() == 1


def test_other_files_and_hidden_ones_are_left_alone(pets):
    (pets / "cat" / "notes.txt").write_text("no image")
    (pets / "cat" / "._0.png").write_bytes(b"what some systems leave behind")
    (pets / ".thumbs").mkdir()
    (pets / "readme.png").write_bytes(b"")
    assert len(load_dataset(str(pets)).inputs) == 6


def test_a_folder_that_changed_is_read_again(pets):
    before = load_dataset(str(pets)).digest
    (pets / "cat" / "2.png").rename(pets / "dog" / "9.png")
    assert load_dataset(str(pets)).digest != before
    picture(pets / "dog" / "9.png", value=77)
    written = load_dataset(str(pets))
    assert 77 in levels(np.concatenate([written.inputs, written.test_inputs]))


def test_the_order_is_that_of_names_not_of_the_disk(pets, tmp_path):
    """The same files written in another order."""
    copy = tmp_path / "copy"
    for path in sorted(pets.rglob("*.png"), reverse=True):
        target = copy / path.relative_to(pets)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    assert load_dataset(str(copy)).digest == load_dataset(str(pets)).digest


# --- what is no data


def png(width, height):
    """A PNG whose header states a size, with next to nothing behind it."""

    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged(good):
    return {
        "empty": b"",
        "text": b"no image at all",
        "truncated": good[: len(good) // 2],
        "huge": png(30_000, 30_000),
        "bomb": png(2**31 - 1, 2**31 - 1),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\nshowpage\n",
        "pickle": b"\x80\x04N.",
    }


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", damaged(b""))
@pytest.mark.parametrize("place", ["cat/0.png", "dog/3.png"])
def test_a_file_that_is_no_image_is_named_in_one_sentence(pets, what, place):
    (pets / place).write_bytes(damaged((pets / place).read_bytes())[what])
    with pytest.raises(FileError) as error:
        load_dataset(f"{pets}?gray=true")
    text = str(error.value)
    assert text.startswith("expected ") and "got" in text and str(pets / place) in text and "\n" not in text


def test_pixels_are_counted_before_they_are_decoded(pets, monkeypatch):
    monkeypatch.setattr(data_folder, "MAX_PIXELS", 19)
    with pytest.raises(FileError, match=r"megapixels, got 5x4 from .*cat.0\.png"):
        load_dataset(f"{pets}?size=3")


def test_images_are_counted_before_they_are_read(pets, monkeypatch):
    monkeypatch.setattr(data_folder, "MAX_IMAGES", 6)
    with pytest.raises(FileError, match="expected 1 to 6 images"):
        load_dataset(f"{pets}?size=2")


def test_memory_is_counted_before_it_is_taken(pets, monkeypatch):
    monkeypatch.setattr("minutia.storage.data_arrays.MAX_BYTES", 7 * 4 * 16**2 - 1)
    with pytest.raises(UsageError, match="of data, got"):
        load_dataset(f"{pets}?size=16&gray=true")


def test_more_than_8_bits_would_be_cut_and_are_refused(pets):
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(pets / "dog" / "0.png")
    with pytest.raises(FileError, match=r"8 bits per channel, got mode I;16 from .*dog.0\.png"):
        load_dataset(f"{pets}?gray=true")


def test_another_size_asks_for_size(pets):
    picture(pets / "dog" / "2.png", (6, 5, 3))
    with pytest.raises(FileError, match=r"of one size, 5x4, got 5x6 from .*dog.2\.png: add \?size="):
        load_dataset(str(pets))


def test_a_class_that_is_only_in_the_test_part_is_refused(pets, tmp_path):
    both = tmp_path / "both"
    both.mkdir()
    pets.rename(both / "train")
    picture(both / "test" / "bird" / "a.png")
    with pytest.raises(FileError, match=r"expected the classes cat, dog in .*test, got 'bird'"):
        load_dataset(str(both))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "one subfolder of images per class, got 0"),
        (["cat"], "per class, got 1"),
        (["cat", "dog"], "expected images .* in every class, got none in .*cat"),
        (["train/cat", "train/dog", "test/dog"], "in every class, got none in .*cat"),
        (["train/cat"], "per class, got 1"),
    ],
)
def test_a_folder_without_images_is_one_sentence(tmp_path, made, said):
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(FileError, match=said):
        load_dataset(str(tmp_path))


def test_no_folder_is_one_sentence(tmp_path):
    with pytest.raises(FileError, match="expected a folder of images, found none at"):
        load_dataset(f"folder:{tmp_path}/absent")


@pytest.mark.parametrize("query", ["size=0", "size=-3", "size=5000", "size=x", "size=٣", "gray=yes", "rgb=true"])
def test_options_that_make_no_sense_are_refused(pets, query):
    with pytest.raises(UsageError, match=r"^expected .*got "):
        load_dataset(f"{pets}?{query}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_would_never_end_is_not_opened(pets):
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "cat" / "loop").symlink_to(pets)
    assert len(load_dataset(str(pets)).inputs) == 6


def test_without_pillow_the_pip_line_is_told(pets, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'minutia\[images\]'"):
        load_dataset(f"{pets}?size=3")


def test_a_test_part_without_images_is_one_sentence(pets, tmp_path):
    both = tmp_path / "both"
    (both / "test" / "dog").mkdir(parents=True)
    pets.rename(both / "train")
    with pytest.raises(FileError, match=r"expected 1 to 500000 images in .*test, got none"):
        load_dataset(str(both))
