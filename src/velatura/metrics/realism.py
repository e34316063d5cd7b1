"""How real made images look as a set: distances of features, precision and recall, memorisation.

Every figure here is of two sets of features, (n, d); a figure's name says whose they are: ``FD-velatura`` and
``KID-velatura`` are of our own features, ``FD-googlenet`` and ``KID-googlenet`` of a user's copy of GoogLeNet
(`velatura_features`, `googlenet_features`). FID and KID proper are of Inception-v3, and no figure here is called so.

All of them depend on how many images there are: compare as many of each, and print the figure of two sets of real
images beside (`compare`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from velatura.nets.googlenet import GoogLeNet

__all__ = [
    "Realism",
    "compare",
    "frechet_distance",
    "googlenet_features",
    "kernel_distance",
    "memorised",
    "nearest",
    "precision_recall",
    "velatura_features",
]

LAYERS = ("stride8", "stride16")  # of our features
SIDE = 224  # that GoogLeNet was trained at
BATCH = 64  # images at a time
PART = 1024  # rows of a matrix of distances at a time
NEIGHBOURS = 3  # k, Kynkaanniemi et al. 2019, section 3.1
# Differences, not products: of two equal images products make a distance that is not 0.
EXACT = "donot_use_mm_for_euclid_dist"
PERCENTILE = 0.01  # of the distances to the nearest training image


@dataclass(frozen=True, slots=True)
class Realism:
    """What `compare` finds.

    Attributes
    ----------
    frechet, kernel : float
        Distances of the made images from real ones; 0 for one kind.
    precision, recall : float
        Shares, 0..1.
    frechet_floor, kernel_floor : float
        The same distances of other real images, as many.
    count : int
        How many images of each set.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float
    frechet_floor: float
    kernel_floor: float
    count: int


def compare(made: Tensor, real: Tensor, others: Tensor) -> Realism:
    """Measure made images against real ones, beside other real ones.

    Parameters
    ----------
    made, real, others : Tensor, (n, d), (m, d), (l, d)
        Features; `real` were held out, `others` are real ones that the model may have seen. The first so many of each
        are taken as all three sets have.

    Returns
    -------
    Realism

    Raises
    ------
    ValueError
        There are fewer than five images, or the features differ in their number.
    """
    count = min(len(made), len(real), len(others))
    made, real, others = made[:count], real[:count], others[:count]
    precision, recall = precision_recall(made, real)
    return Realism(
        frechet=frechet_distance(made, real),
        kernel=kernel_distance(made, real),
        precision=precision,
        recall=recall,
        frechet_floor=frechet_distance(others, real),
        kernel_floor=kernel_distance(others, real),
        count=count,
    )


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Frechet distance of the normal distributions that fit two sets of features.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017 (arXiv
    1706.08500), equation 6: ``|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))``.

    Parameters
    ----------
    first, second : Tensor, (n, d) and (m, d)

    Notes
    -----
    The last trace is the sum of the singular values of the product of two roots of the covariances. So there is no
    matrix root to go wrong, and fewer images than features do no harm but that of a biased figure.

    Differs from the paper: the features are the caller's.

    Examples
    --------
    >>> line = torch.tensor([[-1.0], [1.0]])
    >>> frechet_distance(line, line + 3), frechet_distance(line, 2 * line)
    (9.0, 2.0)
    """
    first, second = _pair(first, second)
    apart = (first.mean(0) - second.mean(0)).square().sum()
    one, other = _root(first), _root(second)
    common = torch.linalg.svdvals(one @ other.T).sum()
    return float((apart + one.square().sum() + other.square().sum() - 2 * common).clamp_min(0))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Squared maximum mean discrepancy of two sets of features, unbiased: about 0 for one kind, and then below 0, too.

    Binkowski et al., "Demystifying MMD GANs", 2018 (arXiv 1801.01401), section 4: the kernel ``(x.y / d + 1)^3``.

    Parameters
    ----------
    first, second : Tensor, (n, d) and (m, d)

    Notes
    -----
    Differs from the paper: the features are the caller's; all images at once instead of the mean over parts.
    """
    first, second = _pair(first, second)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def among(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.diagonal().sum()) / (len(x) * (len(x) - 1))

    return float(among(first) + among(second) - 2 * kernel(first, second).mean())


def precision_recall(made: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Give the share of made images among real ones, and of real ones among made ones.

    Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019 (arXiv
    1904.06991), equations 1 to 3: an image is among others if it is no further from one of them than that one's k-th
    nearest neighbour is.

    Parameters
    ----------
    made, real : Tensor, (n, d) and (m, d)
        As many of each as a rule: both figures depend on it.
    neighbours : int
        k.

    Returns
    -------
    precision, recall : float
        0..1. Two sets of one kind do not have 1: print theirs beside.

    Raises
    ------
    ValueError
        A set has no more images than k.
    """
    made, real = _pair(made, real)
    if min(len(made), len(real)) <= neighbours:
        raise ValueError(f"got {min(len(made), len(real))} images; expected more than {neighbours}")
    return _among(made, real, neighbours), _among(real, made, neighbours)


def nearest(made: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Find the training image that is most like each made one.

    Returns
    -------
    distance : Tensor of float64, (n,)
        Euclidean, in the features.
    index : Tensor of int64, (n,)
    """
    made, training = _pair(made, training)
    found = [torch.cdist(part, training, compute_mode=EXACT).min(1) for part in made.split(PART)]
    return torch.cat([one.values for one in found]), torch.cat([one.indices for one in found])


def memorised(made: Tensor, held: Tensor, training: Tensor) -> tuple[float, float]:
    """Compare how near made images and held-out ones come to what was trained on.

    Returns
    -------
    made, held : float
        First percentile of the distance to the nearest training image. Made images that come nearer than photographs
        that were never seen are copies.
    """
    of_made, of_held = (nearest(each, training)[0].quantile(PERCENTILE) for each in (made, held))
    return float(of_made), float(of_held)


@torch.no_grad()
def velatura_features(network: nn.Module, images: Tensor) -> Tensor:
    """Give our features' means over places, at strides 8 and 16.

    Parameters
    ----------
    network : velatura.nets.features.Features
    images : Tensor of float32, (N, 1 or 3, H, W)
        0..1, each side at least 32; grey as RGB.

    Returns
    -------
    Tensor of float32, (N, d)
        On the CPU.
    """
    device, parts = next(network.parameters()).device, []
    for part in images.split(BATCH):
        maps = network(part.to(device).expand(-1, 3, -1, -1).clamp(0, 1), LAYERS)
        parts.append(torch.cat([found.mean((2, 3)) for found in maps.values()], dim=1).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def googlenet_features(network: GoogLeNet, images: Tensor) -> Tensor:
    """Give GoogLeNet's last means over places, (N, 1024), of images at 224 pixels; else as `velatura_features`."""
    device, parts = next(network.parameters()).device, []
    for part in images.split(BATCH):
        shown = part.to(device).expand(-1, 3, -1, -1).clamp(0, 1)
        large = functional.interpolate(shown, (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True)
        large = large.clamp(0, 1).to(memory_format=torch.channels_last)  # half the time on a CPU
        parts.append(network.embedding(large).float().cpu())
    return torch.cat(parts)


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Check two sets of features, and give them in double precision."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        got = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"got features of shapes {got}; expected (n, d) and (m, d), two images at least")
    return first.double(), second.double()


def _root(features: Tensor) -> Tensor:
    """Give a matrix R with ``R^T R`` = the covariance, of at most d rows."""
    centred = (features - features.mean(0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(features) > features.shape[1] else centred


def _among(points: Tensor, others: Tensor, neighbours: int) -> float:
    """Give the share of `points` inside one of the balls around `others` that reach their k-th neighbours."""
    reach = torch.cat(
        # The nearest is the point itself.
        [torch.cdist(part, others, compute_mode=EXACT).kthvalue(neighbours + 1).values for part in others.split(PART)]
    )
    inside = [(torch.cdist(part, others, compute_mode=EXACT) <= reach).any(1) for part in points.split(PART)]
    return float(torch.cat(inside).double().mean())
