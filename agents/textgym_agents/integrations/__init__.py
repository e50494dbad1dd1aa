"""Language-model policies for other libraries of agents; each module imports its library."""
