"""One training step, composed of exchangeable parts: batch selection, batch gradient, update."""
