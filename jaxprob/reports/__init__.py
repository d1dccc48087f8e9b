"""What a person reads: summaries, reports, plots."""
