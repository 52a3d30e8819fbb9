"""How worlds are made: one loop, and one file a stage."""
