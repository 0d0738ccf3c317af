"""How good is a score: metrics, resamples, verdicts, published numbers, figures."""
