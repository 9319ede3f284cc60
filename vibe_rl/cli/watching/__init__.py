"""`vibe-rl watch` from the inside: a run's records as they land, charts of them, the screen."""
