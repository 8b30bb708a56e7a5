"""The networks, losses, optimisers, moving averages and samplers of scratchgen in other frameworks, one file each.

A training goes on there from `scratchgen.export.state_dict`, and comes back.  The benchmarks time the same functions.
"""
