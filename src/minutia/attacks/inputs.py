"""Query-time defences that change inputs: compression, noise with votes, smoothing, fewer bits, mirror images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from minutia.attacks.crafting import no_text
from minutia.attacks.served import SCORED, Serving, Setup, seeded
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model
from minutia.core.probe import ProbeSet

LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantisation steps of JPEG's luminance at quality 50: table K.1 of ITU-T T.81."""
PLACES = 6
"""Decimals kept before rounding to whole numbers, so that float noise decides no tie."""
STRENGTHS = {
    "noise": "a deviation of 0 or more, in units of the input range",
    "blur": "a deviation above 0, in pixels",
    "mean": "an odd window of 3 or more pixels",
    "median": "an odd window of 3 or more pixels",
    "bits": "1 to 16 bits",
    "flip": "any number, it has no meaning here",
}
"""What ``strength`` means for each way to smooth."""
FLAT = ("noise", "bits")
"""Ways that need no image."""


@dataclass(frozen=True)
class CompressInputs(Serving):
    """Compress every image as JPEG does, and decompress it, before the model sees it.

    Each channel by itself: 256 grey levels, blocks of 8 x 8, discrete cosine transform, rounding to multiples of the
    standard luminance table scaled by ``quality`` (1 to 100), and back; edges are repeated to fill the last blocks.
    Nothing is done to colour spaces, and entropy coding loses nothing, so it is left out.

    Source: JPEG compression as in Lukas et al., IEEE S&P 2022, arXiv 2108.04974 (qualities 95, 65, 45); ITU-T T.81.

    >>> grey = np.full((1, 1, 8, 8), 0.5, np.float32)
    >>> CompressInputs(quality=1).compressed(grey, (0.0, 1.0)).round(2)[0, 0, 0, :2].tolist()
    [0.5, 0.5]
    """

    name = "compress_inputs"
    kind = "compress-inputs"
    source = "Lukas et al., IEEE S&P 2022, arXiv 2108.04974"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "wrt": {"quality": 95},
        "wrt-65": {"quality": 65},
        "wrt-45": {"quality": 45},
    }
    quality: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"expected a quality of 1 to 100, got {self.quality}")

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Keep the valid box."""
        check_images(self.name, material.inputs, material.content)
        return Setup(arrays=_box(material))

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """Answers to the compressed images."""
        low, high = setup.arrays["bounds"].tolist()
        return model.ask(replace(probes, content=self.compressed(probes.array, (low, high))))

    def compressed(self, images: Array, bounds: tuple[float, float]) -> Array:
        """Images (n, *channels, height, width) after compression, within ``bounds``."""
        check_images(self.name, images)
        low, high = bounds
        grey = np.round(np.clip((images.astype(float) - low) / (high - low), 0, 1) * 255)
        back = np.clip(_whole(_blockwise(grey - 128, self.steps()) + 128), 0, 255)
        return (low + back / 255 * (high - low)).astype(np.float32)

    def steps(self) -> Array:
        """Quantisation steps (8, 8) at this quality; 1 everywhere at 100.

        >>> CompressInputs(quality=25).steps()[0, :3].tolist()
        [32.0, 22.0, 20.0]
        """
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        return np.clip(np.floor((LUMINANCE * scale + 50) / 100), 1, 255)


@dataclass(frozen=True)
class SmoothInputs(Serving):
    """Blur what tells one point from its neighbours: ``how`` is noise, blur, mean, median, bits or flip.

    ``strength`` is the deviation of the noise in units of the input range, that of a Gaussian blur in pixels, the
    window of a mean or median in pixels, or the bits that are left. With noise, ``votes`` noisy copies of each probe
    are asked and the majority answers (randomised smoothing); scores are then the shares of the votes. In texts,
    noise puts any other token in the place of a share ``strength`` of the tokens; the other ways are for numbers.

    Source: Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918; the other ways as in Lukas et al., IEEE S&P 2022,
    arXiv 2108.04974 (noise .01 to .1, blur .5 to .7, windows of 3, 4 bits).

    >>> SmoothInputs(how="bits", strength=1).changed(np.array([[0.2, 0.7]]), (0.0, 1.0)).tolist()
    [[0.0, 1.0]]
    """

    name = "smooth_inputs"
    kind = "smooth-inputs"
    source = "Cohen, Rosenfeld, Kolter, ICML 2019, arXiv 1902.02918"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "wrt": {"how": "noise", "strength": 0.01},
        "wrt-noise": {"how": "noise", "strength": 0.1},
        "wrt-blur": {"how": "blur", "strength": 0.5},
        "wrt-mean": {"how": "mean", "strength": 3.0},
        "wrt-median": {"how": "median", "strength": 3.0},
        "wrt-bits": {"how": "bits", "strength": 4.0},
        "wrt-flip": {"how": "flip"},
    }
    strength: float = 0.1
    votes: int = 1
    how: str = "noise"

    def __post_init__(self) -> None:
        if self.how not in STRENGTHS:
            raise UsageError(f"expected how to be one of {', '.join(STRENGTHS)}, got {self.how!r}")
        if not _fits(self.how, self.strength):
            raise UsageError(f"expected {STRENGTHS[self.how]} for {self.how}, got a strength of {self.strength}")
        if self.votes < 1 or (self.votes > 1 and self.how != "noise"):
            raise UsageError(f"expected 1 vote, or more of them with noise, got {self}: only noise gives other copies")

    def shown(self, access: Access) -> Access:
        """Votes have no logits."""
        return access & (SCORED if self.votes > 1 else self.shows)

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Keep the valid box, and draw the seed of the noise."""
        if self.how not in FLAT:
            check_images(self.name, material.inputs, material.content)
        if self.how != "noise":
            no_text(f"{self.name} with {self.how}", material)
            return Setup(arrays=_box(material))
        return seeded(rng, {**_box(material), "tokens": np.array(material.content == "text")})

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """Answers to the changed inputs, or the majority of several."""
        low, high = setup.arrays["bounds"].tolist()
        if self.how != "noise":
            return model.ask(replace(probes, content=self.changed(probes.array, (low, high))))
        draws, noisy = setup.generators(probes), self.exchanged if setup.arrays["tokens"] else self.noisy
        rounds = [
            model.ask(replace(probes, content=noisy(probes.array, draws, (low, high)))) for _ in range(self.votes)
        ]
        return rounds[0] if self.votes == 1 else voted(rounds)

    def noisy(self, inputs: Array, draws: Sequence[np.random.Generator], bounds: tuple[float, float]) -> Array:
        """The inputs (n, *shape) with noise of one generator per row."""
        low, high = bounds
        noise = [g.normal(0, self.strength * (high - low), inputs.shape[1:]) for g in draws]
        return np.clip(inputs + np.reshape(noise, inputs.shape), low, high).astype(np.float32)

    def exchanged(self, inputs: Array, draws: Sequence[np.random.Generator], bounds: tuple[float, float]) -> Array:
        """Sequences of tokens (n, length) of which some are any token within ``bounds``."""
        shape, (low, high) = inputs.shape[1:], (int(np.ceil(bounds[0])), int(np.floor(bounds[1])))
        drawn = [np.where(g.random(shape) < self.strength, g.integers(low, high + 1, shape), np.nan) for g in draws]
        other = np.reshape(drawn, inputs.shape)
        return np.where(np.isnan(other), inputs, other).astype(np.float32)

    def changed(self, inputs: Array, bounds: tuple[float, float]) -> Array:
        """The inputs (n, *shape) smoothed in a way that draws nothing."""
        low, high = bounds
        if self.how == "bits":
            top = 2 ** int(self.strength) - 1
            found = low + np.round((inputs.astype(float) - low) / (high - low) * top) / top * (high - low)
        else:
            check_images(self.name, inputs)
            found = _filtered(inputs.astype(float), self.how, self.strength)
        return np.clip(found, low, high).astype(np.float32)


def voted(rounds: Sequence[Answers]) -> Answers:
    """The majority of several answers to the same probes; the first class wins a tie, silence has no vote.

    >>> voted([Answers.from_labels(np.array([label])) for label in (2, 0, 2)]).labels.tolist()
    [2]
    """
    first = rounds[0]
    labels = np.stack([r.labels for r in rounds])
    classes = first.scores.shape[1] if first.scores is not None else int(labels.max(initial=0)) + 1
    counts = (labels[:, :, None] == np.arange(classes)).sum(axis=0)
    total = counts.sum(axis=1)
    status = np.where(total > 0, Status.OK, first.status).astype(np.uint8)
    named = np.where(total > 0, counts.argmax(axis=1), -1).astype(np.int64)
    if first.scores is None:
        return Answers(status, named)
    shares = counts / np.maximum(total, 1)[:, None]
    return Answers(status, named, np.where(total[:, None] > 0, shares, first.scores).astype(np.float32))


def check_images(what: str, inputs: Array, content: str = "image") -> None:
    """Neighbouring pixels are needed."""
    if content != "image" or inputs.ndim < 3:
        raise UsageError(
            f"expected images of shape (n, channels, height, width) for {what}, got {content} of shape "
            f"{inputs.shape}: use smooth_inputs with noise or bits"
        )


def _box(material: Material) -> dict[str, Array]:
    return {"bounds": np.array(material.bounds, float)}


def _fits(how: str, strength: float) -> bool:
    """Whether a strength means something for this way."""
    if how in ("mean", "median"):
        return strength >= 3 and strength % 2 == 1
    if how == "bits":
        return 1 <= strength <= 16 and strength % 1 == 0
    return (strength > 0 if how == "blur" else strength >= 0) and strength < np.inf


def _filtered(images: Array, how: str, strength: float) -> Array:
    """Smooth over the last two axes, edges repeated, or mirror left and right."""
    from scipy import ndimage

    if how == "flip":
        return images[..., ::-1]
    window = (1,) * (images.ndim - 2)
    if how == "blur":
        return np.asarray(
            ndimage.gaussian_filter(images, (*(0 * w for w in window), strength, strength), mode="nearest")
        )
    smooth = ndimage.uniform_filter if how == "mean" else ndimage.median_filter
    return np.asarray(smooth(images, (*window, int(strength), int(strength)), mode="nearest"))


def _blockwise(images: Array, steps: Array) -> Array:
    """Round the cosine transform of every block of 8 x 8 to multiples of ``steps``, and transform back."""
    from scipy.fft import dctn, idctn

    height, width = images.shape[-2:]
    fill = [(0, 0)] * (images.ndim - 2) + [(0, -height % 8), (0, -width % 8)]
    padded = np.pad(images, fill, mode="edge")
    lead, (rows, columns) = padded.shape[:-2], padded.shape[-2:]
    blocks = padded.reshape(*lead, rows // 8, 8, columns // 8, 8)
    axes = (-3, -1)
    kept = _whole(dctn(blocks, axes=axes, norm="ortho") / steps[:, None, :]) * steps[:, None, :]
    return np.asarray(idctn(kept, axes=axes, norm="ortho")).reshape(padded.shape)[..., :height, :width]


def _whole(values: Array) -> Array:
    """Round to whole numbers, the same in every batch."""
    return np.round(np.round(values, PLACES))
