"""Predict median house values in Californian districts: the answers behind the notebooks."""

import sys
import warnings

# jsonschema would spend more than a second on the grammar of international addresses; no notebook
# has any.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# Optuna and MLflow look for a progress widget as they are imported; in a notebook, that it is
# missing is nobody's business.
warnings.filterwarnings("ignore", message="IProgress not found")
