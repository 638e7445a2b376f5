"""What a training run leaves behind: log, bar, pictures, report, card."""
