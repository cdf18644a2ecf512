"""What every benchmark shares: options, the journal of its runs, figures, tables and pictures."""
