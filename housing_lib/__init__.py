"""Predict median house values in Californian districts: the answers behind the notebooks."""

import warnings

# Optuna and MLflow look for a progress widget as they are imported; in a notebook, that it is
# missing is nobody's business.
warnings.filterwarnings("ignore", message="IProgress not found")
