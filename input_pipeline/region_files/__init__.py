"""What the formats of extracted regions share: contract, checks, isolation."""
