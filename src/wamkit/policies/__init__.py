"""The policies: Light-WAM."""
