"""Exponents of measured and of predicted loss curves, with their intervals."""

from featscale.fits.curve import CurveFit, fit_curve
from featscale.fits.verdict import verdict

__all__ = ["CurveFit", "fit_curve", "verdict"]
