"""Load on a Wanwu server: what locust sends, what came of it, and the capacity that it shows."""
