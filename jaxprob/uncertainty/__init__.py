"""What a maximum says beyond itself."""
