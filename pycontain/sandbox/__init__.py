"""What a container is, as values: spec, host facts, steps and the plan compiled from them. Pure."""
