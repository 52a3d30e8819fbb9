"""The dream as pure functions and Flax modules: no files, no Gymnasium, no hidden state."""
