"""The tour: trains every model family, grades it against exact answers, draws what it made (needs the `demo` extra)."""
