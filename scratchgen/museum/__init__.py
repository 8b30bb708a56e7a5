"""The museum of mistakes: wrong code, and the check or the test that finds each mistake.

Wing one holds copies of the package's functions, each with one mistake.  A copy takes the place of the package's
function in the table of equations; of all checks in the table, exactly the named one fails.  No check was written for
an exhibit.  A few mistakes that no row sees stand at the end of the wing, with the reason.  The source of a mistake
is a public project, the deck as printed, or a "mutation audit": a systematic trial of single changes of the code.

Wing two plants faults in the running code of the models, by an exchange of the code of a function.  Each fault names
the row of `scratchgen verify` or the property test that sees it.

`scratchgen museum` prints both wings.
"""
