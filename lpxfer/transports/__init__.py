"""Ways to carry bytes to the archive site, and the order of durable steps on the wire."""
