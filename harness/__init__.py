"""How a model is measured: cases -> ask -> score -> verdict -> report. Knows nothing of training."""

__version__ = "0.1.0"
