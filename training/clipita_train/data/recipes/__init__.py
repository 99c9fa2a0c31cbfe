"""Data sets that `clipita-train data build` builds by name."""
