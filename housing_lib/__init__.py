"""Predict median house values in Californian districts: the answers behind the notebooks."""
