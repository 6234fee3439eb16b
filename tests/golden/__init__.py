"""Golden vectors: inputs, weights and outputs of the official modules, and runners that compare ours to them."""
