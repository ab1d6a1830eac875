"""Recipes that are shipped: `NAME.yaml`, and `NAME.smoke.yaml`, its twin of seconds."""
