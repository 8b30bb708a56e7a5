"""Faster forms of functions whose readable forms are in the chapters and in `nn`.

The docstring of a fast form names the function that it replaces.  The table of equations has a row for each fast form,
which checks that both functions give the same values.
"""
