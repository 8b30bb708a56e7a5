"""The tour: train every family of models, grade it against exact answers, draw figures (needs the extra `demo`)."""
