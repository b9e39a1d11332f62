"""What `scripts/services` runs: real servers on loopback, from package registries or from Docker Compose."""
