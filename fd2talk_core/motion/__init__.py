"""Motion: sequences of expression and pose coefficients, sampled, tracked, edited and shown."""
