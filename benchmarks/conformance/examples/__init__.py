"""Worked examples of `audit` and of grading; each runs by `scratchgen audit FILE.py` or as a module.

* `torch_ddpm`: a diffusion model in PyTorch in Ho's convention, from the table to the bound.
* `torch_mistakes`: the same model with one mistake of each kind, and the diagnosis of each.
* `diffusers_schedulers`: DDPMScheduler of diffusers.
* `grade_torch`: a small network in PyTorch, trained here, graded against the exact answer.
"""
