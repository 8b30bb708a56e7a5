"""The commands of the command line, a module each: `add` adds a command to the parser, and `run` runs it."""
