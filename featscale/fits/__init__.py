"""Exponents of measured and of predicted loss curves, with their intervals."""

from featscale.fits.batch import CurveFits, fit_curves
from featscale.fits.curve import CurveFit, fit_curve
from featscale.fits.holdout import Holdout, extrapolate
from featscale.fits.verdict import Equivalence, Paired, equivalence, paired, verdict
from featscale.fits.windows import Prediction

__all__ = [
    "CurveFit",
    "CurveFits",
    "Equivalence",
    "Holdout",
    "Paired",
    "Prediction",
    "equivalence",
    "extrapolate",
    "fit_curve",
    "fit_curves",
    "paired",
    "verdict",
]
