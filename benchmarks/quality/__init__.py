"""How good the models are: every family under one protocol, with floors, ablations and samples; see `__main__`."""
