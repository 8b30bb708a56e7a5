"""`python -m scratchgen.museum` prints the museum of mistakes, as `scratchgen museum` does."""

from scratchgen.museum.tour import print_tour

if __name__ == "__main__":
    print_tour()
