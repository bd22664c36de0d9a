"""The servers that `serving.py` compares: how each is started, found alive and asked."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from housing_lib import tracking
from housing_lib.contract import FEATURES
from housing_lib.settings import PROJECT, get_settings

HERE = Path(__file__).parent
PEERS = HERE / "peers"


@dataclass(frozen=True)
class Contender:
    """One server: its command, what answers once it is up, and bodies and paths to ask with."""

    command: Callable[[int, Path], list[str]]
    alive: str
    path: str
    one: Callable[[dict], bytes]
    many: Callable[[list[dict]], bytes] | None
    batch_path: str = ""


def beside(name):
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


def housing(port, folder):
    """Our server."""
    return [beside("housing"), "serve", "--port", str(port)]


def ceiling(port, folder):
    """A route that validates the same body and answers a constant."""
    return [beside("uvicorn"), "--app-dir", str(HERE), "ceiling:app", "--no-access-log",
            "--port", str(port)]  # fmt: skip


def mlflow(port, folder):
    """MLflow's own scoring server with the same champion."""
    model = f"models:/{get_settings().model_name}@production"
    return [beside("mlflow"), "models", "serve", "-m", model, "--env-manager", "local",
            "--port", str(port)]  # fmt: skip


def mlserver(port, folder):
    """MLServer, which gathers up to 64 requests that come within 5 ms."""
    server = {"host": "127.0.0.1", "http_port": port, "grpc_port": port + 1,
              "metrics_port": port + 2, "parallel_workers": 0, "debug": False}  # fmt: skip
    model = {"name": "champion", "implementation": "mlserver_champion.Champion",
             "max_batch_size": 64, "max_batch_time": 0.005}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(server))
    (folder / "model-settings.json").write_text(json.dumps(model))
    return ["mlserver", "start", str(folder)]


def bentoml(port, folder):
    """BentoML, which gathers up to 64 requests."""
    return ["bentoml", "serve", "bentoml_champion:Champion", "--working-dir", str(PEERS),
            "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip


def plain(content):
    """A body of JSON."""
    return json.dumps(content).encode()


def split(rows):
    """Rows as MLflow's server takes them."""
    data = [list(row.values()) for row in rows]
    return plain({"dataframe_split": {"columns": list(FEATURES), "data": data}})


def tensor(rows):
    """Rows as the open inference protocol takes them."""
    data = [list(row.values()) for row in rows]
    shape = [len(rows), len(FEATURES)]
    return plain({"inputs": [{"name": "rows", "shape": shape, "datatype": "FP64", "data": data}]})


def array(rows):
    """Rows as BentoML takes them."""
    return plain({"rows": [list(row.values()) for row in rows]})


def listed(rows):
    """Rows as our server takes them."""
    return plain({"districts": rows})


def alone(many):
    """A body of one district, for those who take lists."""
    return lambda row: many([row])


CONTENDERS = {
    "housing": Contender(
        housing, "/health/ready", "/predict", plain, listed, batch_path="/predict/batch"
    ),
    "ceiling": Contender(ceiling, "/openapi.json", "/predict", plain, None),
    "mlflow": Contender(mlflow, "/ping", "/invocations", alone(split), split),
    "mlserver": Contender(
        mlserver, "/v2/health/ready", "/v2/models/champion/infer", alone(tensor), tensor
    ),
    "bentoml": Contender(bentoml, "/readyz", "/predict", alone(array), array),
}
BATCHING = ("mlserver", "bentoml")


def found():
    """The names of those that can be started here: peers have environments of their own."""
    return [name for name in CONTENDERS if name not in BATCHING or shutil.which(name)]


def environment():
    """What the servers are told: the store, one thread, and where the champion's file is."""
    champion = tracking.model_file(f"models:/{get_settings().model_name}@production")
    paths = (str(PROJECT), str(PEERS), os.environ.get("PYTHONPATH", ""))
    return os.environ | {
        "MLFLOW_TRACKING_URI": get_settings().store_uri,
        "OMP_NUM_THREADS": "1",
        "HOUSING_POLL_SECONDS": "0.5",
        "HOUSING_CHAMPION_FILE": str(champion),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        # MLflow calls uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "true",
    }
