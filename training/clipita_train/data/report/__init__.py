"""The report on a build: one HTML page with counts, histograms and examples."""
