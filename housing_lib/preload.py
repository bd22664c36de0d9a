"""The slow imports of the notebooks, done once by the fork server that steps are forked from."""

import os

# matplotlib reads it when it is imported, which is here and not in the kernel.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

import bs4
import ipykernel.kernelapp
import mlflow.sklearn
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import nbconvert
import papermill
import skops.io
import sqlalchemy.orm

import housing_lib.execution
import housing_lib.exploration
import housing_lib.geography
import housing_lib.monitoring
import housing_lib.plots
import housing_lib.registry
import housing_lib.rendering
import housing_lib.reports

sqlalchemy.orm.configure_mappers()
