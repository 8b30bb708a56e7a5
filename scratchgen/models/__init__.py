"""The models: constructor arguments, units, labels, files and progress around the training loops of the chapters.

`estimator` has the methods of all models and the scaling of data; `network_model` validates, stops and resumes the
training of networks; `progress` shows it; `files` and `training_state` write and read models, and `loading` reads one
of any class; `convert` turns a DDPM into a ScoreSDE and back; `mixture_model` and `diffusion` are base classes.  The
other modules are named after their models.
"""
