"""How true the dream is."""
