"""The slow imports of the notebooks, done once by the fork server that steps are forked from."""

import gc
import os

from housing_lib import quick_schemas

gc.disable()  # imports make many objects and no garbage
# matplotlib reads it when it is imported, which is here and not in the kernel.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

# It looks for its types in each module that is there, so it comes before the others.
import skops.io  # isort: skip

import bs4
import git
import ipykernel.kernelapp
import mlflow.pyfunc
import mlflow.sklearn
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import nbconvert
import papermill
import sqlalchemy.orm
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

import housing_lib.execution
import housing_lib.exploration
import housing_lib.geography
import housing_lib.findings
import housing_lib.plots
import housing_lib.promotion
import housing_lib.registry
import housing_lib.rendering
import housing_lib.reports
import housing_lib.sessions
import housing_lib.tuning

sqlalchemy.orm.configure_mappers()
warn_dependency_requirement_mismatches(["numpy"])  # makes its table of all packages
gc.freeze()  # no search for garbage touches, and so copies, what the steps share
gc.enable()
