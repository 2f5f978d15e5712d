"""Side-by-side measurements against peers, run by hand; peers live in an environment of their own."""
