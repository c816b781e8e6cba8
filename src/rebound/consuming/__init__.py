"""A Kafka consumer that hands over what its handler fails on."""
