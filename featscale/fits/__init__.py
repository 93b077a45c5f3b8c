"""Exponents of measured and of predicted loss curves, with their intervals."""

from featscale.fits.curve import CurveFit, fit_curve
from featscale.fits.verdict import verdict
from featscale.fits.windows import Prediction

__all__ = ["CurveFit", "Prediction", "fit_curve", "verdict"]
