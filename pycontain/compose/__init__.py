"""Several services together: the compose-spec read into values, and the project that runs them."""
