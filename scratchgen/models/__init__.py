"""The estimators: constructor arguments, units, labels, files and progress around the loops of the chapters.

`estimator` has the verbs that all models share, `standardized` the units, `convert` the way from DDPM to score SDE and
back.  Every other module is named after its models.
"""
