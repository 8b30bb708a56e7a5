"""The book: the equations, the code that runs, both sides computed live, and pictures, as a folder of HTML pages.

`build` writes the pages.  `text` holds the prose as Markdown, one file a page; `prose` renders the prose, and `maths`
its formulas.  `facts` computes the checks of all rows of the table and the effect of the museum's mistakes.  `code`
shows the source of a function.  `figures` draws the pictures from exact laws, without training.  `templates` holds the
frame of a page, its parts and the style sheet.
"""
