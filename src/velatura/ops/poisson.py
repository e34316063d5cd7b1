"""Poisson's equation on a mask of any shape (Perez, Gangnet, Blake 2003, equations 4, 7 and 11).

Where ``free`` is true, ``u`` is sought with ``sum over neighbours q of (u_p - u_q) = f_p``; elsewhere ``u`` is given.
Neighbours outside the image do not count (Neumann). The solver is a conjugate gradient preconditioned by a multigrid
V-cycle and started from the solution on coarser grids: a handful of iterations whatever the size. All passes go
through bands of rows that stay in the processor's cache, which halves their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from velatura.ops.pyramid import double, double_window, halve, halve_adjoint

__all__ = ["membrane", "ring", "solve_dirichlet"]

OMEGA = 0.9  # damping of Jacobi's iteration; measured: fewest iterations between 0.7 and 1
NARROW = 8  # px; a grid whose shorter side is no longer is solved directly: halving would no longer halve it
DIRECT = 128  # px; a membrane of this side starts from nothing
CONTRACTION = 0.8  # error after a V-cycle, as a share of the V-cycle's own step; measured: 0.3-0.9
ITERATIONS = 60  # at most; six are usual
BAND = 2**16  # elements of one channel in a band


def ring(free: np.ndarray) -> np.ndarray:
    """Give the pixels outside ``free`` that touch it: (H, W) bool.

    Examples
    --------
    >>> ring(np.array([[False, True, True, False, False]]))
    array([[ True, False, False,  True, False]])
    """
    near = np.zeros_like(free)
    near[1:] |= free[:-1]
    near[:-1] |= free[1:]
    near[:, 1:] |= free[:, :-1]
    near[:, :-1] |= free[:, 1:]
    return near & ~free


def membrane(
    values: np.ndarray,
    free: np.ndarray,
    *,
    tolerance: float = 1e-4,
    weight: np.ndarray | None = None,
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Span a membrane over ``free`` from the values on its `ring`.

    Parameters
    ----------
    values : numpy.ndarray
        (C, H, W) float; read on the ring only.
    free : numpy.ndarray
        (H, W) bool.
    tolerance : float
        Estimated error at which the solution is good enough, in units of ``values``.
    weight : numpy.ndarray, optional
        (H, W) how much of a pixel lies on the ring of the original grid; None for that grid itself.
    tick : callable
        Called after every iteration; what it raises stops the work.

    Returns
    -------
    numpy.ndarray
        (C, H, W): the membrane inside, ``values`` outside. A part of ``free`` without a ring gets zero.
    """
    height, width = free.shape
    if weight is None:
        weight = ring(free).astype(values.dtype)
    if max(height, width) > DIRECT:
        u = _from_coarser(values, free, weight, tolerance, tick)
        np.copyto(u, values, where=~free)
    else:
        u = np.where(free, 0, values)
    _solve(u, free, None, tolerance, ITERATIONS, tick)
    return u


def _from_coarser(
    values: np.ndarray, free: np.ndarray, weight: np.ndarray, tolerance: float, tick: Callable[[], None]
) -> np.ndarray:
    """Double the membrane of the next coarser grid, whose ring has the mean of the values on this one's."""
    share = halve(weight)
    given = share > 0
    coarse_values = halve(values * weight) / np.where(given, share, 1)
    coarse_free = (halve(free.astype(values.dtype)) > 0) & ~given
    known = (coarse_free | given).astype(values.dtype)
    coarse = membrane(coarse_values, coarse_free, tolerance=tolerance, weight=given.astype(values.dtype), tick=tick)
    coarse *= known
    u = double(coarse, *free.shape)
    u /= np.maximum(double(known, *free.shape), 1e-6)
    return u


def solve_dirichlet(
    values: np.ndarray,
    free: np.ndarray,
    source: np.ndarray | None = None,
    *,
    tolerance: float = 1e-4,
    iterations: int = ITERATIONS,
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Solve for ``u`` inside a mask with ``u`` given outside.

    Parameters
    ----------
    values : numpy.ndarray
        (C, H, W) float32 or float64: the given ``u`` where ``free`` is false, the first guess where it is true.
    free : numpy.ndarray
        (H, W) bool: where to solve. A part of it that touches no given pixel keeps the mean of its first guess.
    source : numpy.ndarray, optional
        (C, H, W) ``f``, read inside ``free`` only; None for zero, the membrane.
    tolerance : float
        Estimated error at which to stop, in units of ``values``.
    iterations : int
        At most so many.
    tick : callable
        Called after every iteration; what it raises stops the work.

    Returns
    -------
    numpy.ndarray
        (C, H, W), dtype of ``values``; equal to it where ``free`` is false.
    """
    u = np.array(values)
    _solve(u, free, source, tolerance, iterations, tick)
    return u


def _solve(
    u: np.ndarray,
    free: np.ndarray,
    source: np.ndarray | None,
    tolerance: float,
    iterations: int,
    tick: Callable[[], None],
) -> None:
    """Do the work of `solve_dirichlet` in place."""
    if min(free.shape) <= NARROW and u.dtype != np.float64:
        # What a long strip adds up from end to end is more than float32 can hold.
        exact = u.astype(np.float64)
        _solve(exact, free, source, tolerance, iterations, tick)
        u[:] = exact
        return
    if free.any():
        grid = _Grid(free, u.dtype)
        # Channels are systems of their own; one at a time takes a third of the memory.
        for channel, plane in enumerate(u):
            grid.conjugate_gradient(plane, None if source is None else source[channel], tolerance, iterations, tick)


class _Grid:
    """One level: the mask, the operator on it, and the next coarser level."""

    def __init__(self, free: np.ndarray, dtype: np.dtype) -> None:
        self.height, self.width = height, width = free.shape
        self.free = free.astype(dtype)
        self.relax = dtype.type(OMEGA / 4)  # at the image's border the diagonal is less: the damping is stronger there
        self.coarse = self.direct = None
        if min(height, width) <= NARROW:
            self.direct = splu(_matrix(free))
        else:
            # A coarse pixel is free where its four children are: near the rim the smoother does the work.
            inner = halve(self.free) == 1
            if inner.any():
                self.coarse = _Grid(inner, dtype)

    def bands(self) -> Iterator[slice]:
        """Cut the rows into bands of an even number of rows."""
        step = max(BAND // self.width // 2 * 2, 16)
        for top in range(0, self.height, step):
            yield slice(top, min(top + step, self.height))

    def grown(self, rows: slice, by: int) -> tuple[slice, slice]:
        """Grow a band, and say where the band lies in the grown one."""
        top, bottom = max(rows.start - by, 0), min(rows.stop + by, self.height)
        return slice(top, bottom), slice(rows.start - top, rows.stop - top)

    def apply(self, u: np.ndarray, rows: slice) -> np.ndarray:
        """Apply the operator to the rows ``rows`` of the grid; right but for rows next to a cut."""
        out = 4 * u
        out[1:] -= u[:-1]
        out[:-1] -= u[1:]
        out[:, 1:] -= u[:, :-1]
        out[:, :-1] -= u[:, 1:]
        # A pixel of the border has one neighbour less.
        out[:, 0] -= u[:, 0]
        out[:, -1] -= u[:, -1]
        if rows.start == 0:
            out[0] -= u[0]
        if rows.stop == self.height:
            out[-1] -= u[-1]
        out *= self.free[rows]
        return out

    def conjugate_gradient(
        self,
        u: np.ndarray,
        source: np.ndarray | None,
        tolerance: float,
        iterations: int,
        tick: Callable[[], None],
    ) -> None:
        """Solve for one channel, (H, W), in place."""
        tiny = np.finfo(u.dtype).tiny
        residual = self.residual(u, source)
        direction, pushed = np.zeros_like(u), np.empty_like(u)
        previous = 1.0
        for _ in range(iterations):
            z, rho, largest = self.v_cycle(residual)
            tick()
            if largest < tolerance / CONTRACTION:
                u += z  # what is left after this step is smaller than the tolerance
                return
            energy = self.advance(direction, z, rho / max(previous, tiny), pushed)
            step = u.dtype.type(rho / max(energy, tiny))
            for rows in self.bands():
                u[rows] += step * direction[rows]
                residual[rows] -= step * pushed[rows]
            previous = rho

    def residual(self, u: np.ndarray, source: np.ndarray | None) -> np.ndarray:
        """Give ``f - A u`` inside the mask, zero outside."""
        out = np.empty_like(u)
        for rows in self.bands():
            wide, band = self.grown(rows, 1)
            np.negative(self.apply(u[wide], wide)[band], out=out[rows])
            if source is not None:
                out[rows] += source[rows] * self.free[rows]
        return out

    def advance(self, direction: np.ndarray, z: np.ndarray, share: float, pushed: np.ndarray) -> float:
        """Set ``direction = z + share * direction`` and ``pushed = A direction``; give their product."""
        energy = 0.0
        for rows in self.bands():
            direction[rows] *= direction.dtype.type(share)
            direction[rows] += z[rows]
        for rows in self.bands():
            wide, band = self.grown(rows, 1)
            pushed[rows] = self.apply(direction[wide], wide)[band]
            energy += _dot(direction[rows], pushed[rows])
        return energy

    def v_cycle(self, residual: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Approximate the inverse: one smoothing before and one after the coarser grid's own cycle.

        Returns
        -------
        z : numpy.ndarray
            (H, W).
        product : float
            ``residual . z``.
        largest : float
            The largest entry of ``z`` by size.
        """
        if self.direct is not None:
            z = np.zeros_like(residual)
            inside = self.free > 0
            z[inside] = self.direct.solve(residual[inside].astype(np.float64))
            return z, _dot(residual, z), float(np.abs(z).max())
        coarse = None
        if self.coarse is not None:
            rest = np.empty(self.coarse.free.shape, residual.dtype)
            for rows in self.bands():
                wide, _ = self.grown(rows, 2)
                smoothed = self.relax * residual[wide]
                left = residual[wide] - self.apply(smoothed, wide)
                halve_adjoint(left, wide.start, rows, self.height, out=rest)
            # The coarse operator is the same stencil on pixels twice as large: the sum of four fine residuals.
            rest *= 4 * self.coarse.free
            coarse = self.coarse.v_cycle(rest)[0]
        z = np.empty_like(residual)
        product, largest = 0.0, 0.0
        for rows in self.bands():
            wide, band = self.grown(rows, 1)
            u = self.relax * residual[wide]
            if coarse is not None:
                u += double_window(coarse, (wide.start, wide.stop), (0, self.width)) * self.free[wide]
            u += self.relax * (residual[wide] - self.apply(u, wide))
            z[rows] = u[band]
            product += _dot(residual[rows], z[rows])
            largest = max(largest, float(np.abs(z[rows]).max()))
        return z, product, largest


def _matrix(free: np.ndarray) -> sparse.csc_matrix:
    """Give the operator on the free pixels, in the order of their rows."""
    number = np.cumsum(free).reshape(free.shape) - 1
    pairs = []
    diagonal = np.zeros(free.shape)
    for axis in (0, 1):
        ahead, behind = [slice(None)] * 2, [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        diagonal[*ahead] += 1
        diagonal[*behind] += 1
        joined = free[*ahead] & free[*behind]
        pairs.append((number[*ahead][joined], number[*behind][joined]))
    if free.all():
        diagonal[0, 0] += 1  # nothing is given anywhere: pin one pixel, or there is no solution
    rows, cols = (np.concatenate(part) for part in zip(*pairs, strict=True))
    values = np.full(len(rows), -1.0)
    size = int(free.sum())
    half = sparse.coo_matrix((values, (rows, cols)), (size, size))
    return sparse.csc_matrix(half + half.T + sparse.diags(diagonal[free]))


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    # BLAS would give other bytes for another number of threads.
    return float(np.einsum("hw,hw->", a, b))
