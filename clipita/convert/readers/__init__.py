"""Read files of weights as arrays, without trust in them."""
