"""Where plans are performed: the zygote, its supervisor, the sweep and the probe."""
