"""Find photographs and captions that are nearly the same, by hashes that change little."""
