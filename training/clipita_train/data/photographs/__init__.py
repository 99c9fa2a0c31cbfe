"""The collections of photographs that clipita-mini learns from, and the list of their examples."""
