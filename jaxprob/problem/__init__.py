"""What a solver sees: a model, its rows and its penalties."""
