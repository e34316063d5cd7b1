"""The Gaussian-Poisson equation of GP-GAN (Wu et al. 2017, section 3.3), solved for a correction.

A composite ``x = m*s + (1 - m)*d`` of source, destination and mask is to get the gradients ``v`` of its two parts
and the colours ``x + t`` of a reference. With ``u = x + c`` the paper's energy asks for the correction ``c``:

    min  || grad c - r ||^2  +  beta * || g * (c - t) ||^2 ,     r = v - grad x ,

where ``g`` is a Gaussian. The residual ``r`` is zero wherever the mask is flat: the composite's own gradients are
right there. So the equation has a source along the seam only, its solution is smooth away from it, an untouched
background stays untouched bit for bit, and no detail can be lost.

Three forms of the normal equation are in circulation (``L`` the Laplacian, ``G`` the convolution with ``g``):

========  =====================================================================  ======================
form      equation for ``c``                                                     where it stands
========  =====================================================================  ======================
gradient  ``(-L + beta G^2) c = -div r + beta G^2 t``                            the energy above
printed   ``(L^2 + beta G^2) c = L div r + beta G^2 t``                          the paper, equation 5
code      ``(-L + beta G) c = -div r + beta G t``                                the authors' program
========  =====================================================================  ======================

All three are diagonal under the cosine transform (DCT-II, Neumann borders). They are local, too: `halo_of` tells how
far a source reaches, so that windows with that halo give the same answer as the whole image.

Differs from the paper: there ``u`` itself is solved for, against a reference that holds low frequencies only, so
that detail between the bands is lost everywhere (Laplacian deviation 0.83-0.88 of the original). The reference
``x + t`` holds the detail of the composite.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import fft

__all__ = ["Form", "divergence", "gaussian_kernel", "halo_of", "seam_flux", "solve"]

Form = Literal["gradient", "printed", "code"]

SIGMA = 0.5  # px; the paper prints none, its program uses 0.5
TAIL = 1e-4  # share of a source's effect that may be lost beyond the halo


def gaussian_kernel(sigma: float = SIGMA) -> np.ndarray:
    """Give one half of the Gaussian, centre first, so that the whole sums to 1: (r + 1,), float64."""
    if sigma == 0:
        return np.ones(1)
    radius = int(4 * sigma + 0.5)
    half = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    return half / (half[0] + 2 * half[1:].sum())


def seam_flux(mask: np.ndarray, difference: np.ndarray, axis: int) -> np.ndarray:
    """Residual gradient ``r = v - grad x`` between neighbours along ``axis``.

    With ``v = mean(m)*grad s + (1 - mean(m))*grad d`` on each edge between two pixels, ``r`` is exactly
    ``-(m_q - m_p) * (D_p + D_q)/2``, where ``D = s - d``.

    Parameters
    ----------
    mask : numpy.ndarray
        (H, W), [0, 1], 1 = source.
    difference : numpy.ndarray
        (C, H, W), source minus destination.
    axis : int
        -1 or -2.

    Returns
    -------
    numpy.ndarray
        (C, H, W), the last entry along ``axis`` is zero: nothing flows through the border.
    """
    flux = np.zeros_like(difference)
    step = np.diff(mask, axis=axis)
    if axis == -1:
        np.multiply(difference[..., :-1] + difference[..., 1:], -0.5 * step, out=flux[..., :-1])
    else:
        np.multiply(difference[..., :-1, :] + difference[..., 1:, :], -0.5 * step, out=flux[..., :-1, :])
    return flux


def divergence(rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Divergence of a flux on edges, as `seam_flux` lays it out; overwrites neither argument.

    Parameters
    ----------
    rows, cols : numpy.ndarray
        (C, H, W): flux to the next row and to the next column.
    """
    out = rows + cols
    out[..., 1:, :] -= rows[..., :-1, :]
    out[..., 1:] -= cols[..., :-1]
    return out


def solve(
    divergence: np.ndarray,
    target: np.ndarray | None = None,
    *,
    beta: float = 1.0,
    form: Form = "gradient",
    sigma: float = SIGMA,
    workers: int = 1,
) -> np.ndarray:
    """Solve the equation on a whole rectangle in closed form.

    Parameters
    ----------
    divergence : numpy.ndarray
        (C, H, W) ``div r``, float32 or float64; the precision of the work.
    target : numpy.ndarray, optional
        (C, H, W) the reference's correction ``t``; None for zero.
    beta : float
        Weight of the colours against the gradients.
    form : {"gradient", "printed", "code"}
        See the module.
    sigma : float
        Standard deviation of the Gaussian, px.
    workers : int
        Threads of the transform.

    Returns
    -------
    numpy.ndarray
        (C, H, W) the correction ``c``, dtype of ``divergence``.

    Notes
    -----
    About 5 ns per element and thread in float32, 2e-4 grey levels from float64.
    """
    height, width = divergence.shape[-2:]
    operator = height, width, beta, form, sigma, divergence.dtype.char
    spectrum = _dct(divergence, workers)
    spectrum *= _filter("gradients", *operator)
    if target is not None:
        spectrum += _dct(target, workers) * _filter("colours", *operator)
    out = fft.idctn(spectrum, axes=(-2, -1), norm="ortho", overwrite_x=True, workers=workers)
    return np.asarray(out)


def _dct(planes: np.ndarray, workers: int) -> np.ndarray:
    return np.asarray(fft.dctn(planes, axes=(-2, -1), norm="ortho", workers=workers))


@lru_cache(maxsize=9)  # windows at corners, borders and inside have nine sizes
def _filter(
    of: Literal["gradients", "colours"], height: int, width: int, beta: float, form: Form, sigma: float, dtype: str
) -> np.ndarray:
    """Give the factors, (H, W), that take the spectrum of ``div r`` or of ``t`` to its part of that of ``c``."""
    rows, cols = (np.pi * np.arange(n) / n for n in (height, width))
    laplacian = (2 * np.cos(rows) - 2)[:, None] + (2 * np.cos(cols) - 2)
    half = gaussian_kernel(sigma)
    gauss = np.outer(*(_symmetric_response(half, angle) for angle in (rows, cols)))
    fidelity = beta * (gauss if form == "code" else gauss**2)
    if form == "printed":
        gradients, denominator = laplacian, laplacian**2 + fidelity
    else:
        gradients, denominator = -1.0, -laplacian + fidelity
    return ((gradients if of == "gradients" else fidelity) / denominator).astype(dtype)


def _symmetric_response(half: np.ndarray, angle: np.ndarray) -> np.ndarray:
    taps = np.arange(1, len(half))
    return half[0] + 2 * (half[1:] * np.cos(np.outer(angle, taps))).sum(-1)


@lru_cache(maxsize=64)
def halo_of(beta: float, form: Form = "gradient", sigma: float = SIGMA) -> int:
    """Give the distance in px beyond which a source keeps less than `TAIL` of its effect.

    Examples
    --------
    >>> halo_of(1.0) <= 16
    True
    """
    # The kernel along one axis: a straight seam, the source that reaches farthest.
    length = 64
    while True:
        impulse = np.zeros((1, length))
        impulse[0, 0] = 1
        kernel = np.abs(solve(np.zeros_like(impulse), impulse, beta=beta, form=form, sigma=sigma)[0])
        tail = kernel[::-1].cumsum()[::-1] / kernel.sum()
        halo = int(np.argmax(tail < TAIL))
        if 0 < halo < length // 2:
            return halo
        length *= 2
