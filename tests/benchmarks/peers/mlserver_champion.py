"""The champion behind MLServer."""

import os
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from housing_lib.trust import unpack_model


class Champion(MLModel):
    """Prices of districts in one tensor."""

    async def load(self) -> bool:
        """Unpack the model."""
        self.model = unpack_model(Path(os.environ["HOUSING_CHAMPION_FILE"]).read_bytes())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The prices of what was gathered."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        prices = self.model.predict(rows).reshape(-1, 1)
        outputs = [NumpyCodec.encode_output("prices", prices)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
