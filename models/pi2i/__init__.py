"""PI2I: a Swing index with large truncation, and a personalised scorer over what it reaches."""
