"""How much of the detail of an enlarged image its small original does not determine.

An enlargement shows detail within each pixel of the small image. How much of it is wrong cannot be seen, but be learned
from images whose original is known: `fit_calibration` finds the law, `Calibration.share` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from velatura.errors import InputError
from velatura.ops.resize import RowResize

__all__ = ["FLOOR", "Calibration", "fit_calibration", "variance_within"]

FLOOR = 16 / 255  # standard deviation of luma; less is no detail to be judged

BINS = 40  # of equal numbers of pixels
FLAT = 1e-6  # variance of luma below which there is no detail to speak of: a quarter of a grey level


@dataclass(frozen=True, slots=True)
class Calibration:
    """The squared error to expect where a result shows detail: ``limit * variance / (variance + knee)``.

    Fine texture is as good as all invented, so the error grows with it; edges are strong and yet known, so that beyond
    the knee it grows no more. Measured: a power law is off by up to five times at both ends.

    Attributes
    ----------
    limit, knee : float
        Of luma, in units of white; variance within one pixel of the small image.
    """

    limit: float
    knee: float

    def error(self, variance: np.ndarray) -> np.ndarray:
        """Give the squared error to expect."""
        return self.limit * variance / (variance + self.knee)

    def share(self, variance: np.ndarray) -> np.ndarray:
        """Give the share of the local detail that is expected to be wrong.

        Parameters
        ----------
        variance : numpy.ndarray
            (h, w): variance of the result's luma within each pixel of the small image.

        Returns
        -------
        numpy.ndarray
            (h, w) in [0, 1]: ``error / (error + detail + FLOOR ** 2)``, detail the variance around the place.

        Examples
        --------
        >>> law = Calibration(limit=0.01, knee=2e-4)
        >>> [round(float(law.share(np.full((3, 3), variance))[1, 1]), 2) for variance in (0, 1e-3, 0.2)]
        [0.0, 0.63, 0.05]
        """
        error = self.error(variance)
        return error / (error + uniform_filter(variance, 3) + FLOOR**2)


def fit_calibration(variance: np.ndarray, error: np.ndarray) -> Calibration:
    """Fit the law of `Calibration`.

    Parameters
    ----------
    variance, error : numpy.ndarray
        (n,): of pixels of the small image, the variance of the result's luma within each and its mean squared error.

    Returns
    -------
    Calibration
        By least squares of the logarithms of means over `BINS` classes of variance: what is wanted is the error to
        expect, not the usual one.

    Raises
    ------
    InputError
        There is no detail, or nothing is wrong with it.

    Examples
    --------
    >>> variance = np.geomspace(1e-6, 1e-1, 4000)
    >>> fitted = fit_calibration(variance, Calibration(0.01, 3e-4).error(variance))
    >>> round(fitted.limit, 3), round(fitted.knee, 5)
    (0.01, 0.0003)
    """
    from scipy.optimize import curve_fit

    order = np.argsort(variance)
    seen, wrong = np.array([[variance[part].mean(), error[part].mean()] for part in np.array_split(order, BINS)]).T
    told = (seen > FLAT) & (wrong > 0)
    if told.sum() < 2:
        raise InputError("the photographs are flat; the map of the evidence needs some that show something")

    def law(x: np.ndarray, limit: float, knee: float) -> np.ndarray:
        return limit + x - np.logaddexp(x, knee)

    (limit, knee), _ = curve_fit(
        law, np.log(seen[told]), np.log(wrong[told]), p0=np.log([wrong.max(), seen[told].mean()])
    )
    return Calibration(float(np.exp(limit)), float(np.exp(knee)))


def variance_within(cells: RowResize, luma: np.ndarray, first: int, rows: tuple[int, int]) -> np.ndarray:
    """Give the variance of luma within pixels of the small image.

    Parameters
    ----------
    cells : RowResize
        From the size of the large image to that of the small one, by the kernel ``area``.
    luma : numpy.ndarray
        (n, W): rows of the large image, at least those that ``cells.needs(rows)`` names.
    first : int
        Which row of the large image comes first.
    rows : tuple of int
        Start and stop in the small image.

    Returns
    -------
    numpy.ndarray
        (stop - start, w).

    Examples
    --------
    >>> stripes = np.tile([0.0, 1.0, 0.5, 0.5], (4, 2))
    >>> variance_within(RowResize((4, 8), (2, 4), "area"), stripes, 0, (0, 2)).tolist()
    [[0.25, 0.0, 0.25, 0.0], [0.25, 0.0, 0.25, 0.0]]
    """
    mean, square = (cells.rows(values, first, rows) for values in (luma, luma**2))
    return np.maximum(square - mean**2, 0)
