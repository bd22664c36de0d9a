"""The champion behind BentoML."""

import os
from pathlib import Path

import bentoml
import numpy as np

from housing_lib.trust import unpack_model


@bentoml.service(workers=1)
class Champion:
    """Prices of districts in one array."""

    def __init__(self) -> None:
        self.model = unpack_model(Path(os.environ["HOUSING_CHAMPION_FILE"]).read_bytes())

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=100)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """The prices of what was gathered."""
        return self.model.predict(rows)
