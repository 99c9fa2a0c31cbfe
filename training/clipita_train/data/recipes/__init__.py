"""Data sets that `clipita-train data build` makes by name."""
